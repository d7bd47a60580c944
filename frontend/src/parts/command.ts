// Lines for the command line tool. What they name comes from people, so every
// word is quoted as a shell wants it.

/** Quotes a word for a POSIX shell, if it needs that. */
export function quote(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** A size as the tool reads it: in the largest unit that keeps it whole. */
export function size(bytes: number): string {
  for (const [unit, n] of [
    ['T', 2 ** 40],
    ['G', 2 ** 30],
    ['M', 2 ** 20],
    ['K', 2 ** 10],
  ] as const) {
    if (bytes >= n && bytes % n === 0) return `${bytes / n}${unit}`;
  }
  return String(bytes);
}

/** Joins words into a line that starts with the tool's name. */
export function command(...words: (string | undefined | false)[]): string {
  const used = words.filter((w): w is string => typeof w === 'string');
  return ['drystone', ...used.map(quote)].join(' ');
}
