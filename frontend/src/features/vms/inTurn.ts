/**
 * Does something to each, one after another, so that a refusal stops the rest and
 * the cluster is not asked for everything at once.
 */
export async function inTurn<T>(items: readonly T[], work: (item: T) => Promise<unknown>) {
  for (const item of items) await work(item);
}
