/** Turns var(--x) into a colour that a canvas understands. */
export function resolve(style: CSSStyleDeclaration, color: string): string {
  const name = /^var\((--[\w-]+)\)$/.exec(color)?.[1];
  return name === undefined ? color : style.getPropertyValue(name).trim() || '#888888';
}

/** Adds an alpha to #rrggbb, which is how the theme writes colours; others stay. */
export function alpha(color: string, a: number): string {
  const byte = Math.round(a * 255)
    .toString(16)
    .padStart(2, '0');
  return /^#[0-9a-f]{6}$/i.test(color) ? color + byte : color;
}
