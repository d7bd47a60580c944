/** How far something was, and when. */
export interface Reading {
  /** Unix milliseconds. */
  at: number;
  done: number;
}

/** Seconds left by the pace between the first and the last reading, if it has one. */
export function secondsLeft(readings: readonly Reading[], total: number): number | undefined {
  const first = readings[0];
  const last = readings.at(-1);
  if (!first || !last || last.at <= first.at || last.done <= first.done) return undefined;
  const pace = (last.done - first.done) / ((last.at - first.at) / 1000);
  return Math.max(0, total - last.done) / pace;
}
