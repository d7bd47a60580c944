/** Where a chart's numbers come from. The chart reads when it is told and seen. */
export interface Source {
  /** Seconds since 1970, then one column per series; null is a gap. */
  read: () => [number[], ...(number | null)[][]];
  subscribe: (tell: () => void) => () => void;
}
