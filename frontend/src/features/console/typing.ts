/** One key to press, with or without Shift. */
export interface Stroke {
  keysym: number;
  code: string;
  shift: boolean;
}

// The keys of a keyboard of the United States, which is what a guest has that was told
// nothing else: plain, and with Shift.
const keys: readonly (readonly [code: string, plain: string, shifted: string])[] = [
  ['Backquote', '`', '~'],
  ...'1234567890'.split('').map((d, i) => [`Digit${d}`, d, '!@#$%^&*()'.charAt(i)] as const),
  ['Minus', '-', '_'],
  ['Equal', '=', '+'],
  ['BracketLeft', '[', '{'],
  ['BracketRight', ']', '}'],
  ['Backslash', '\\', '|'],
  ['Semicolon', ';', ':'],
  ['Quote', "'", '"'],
  ['Comma', ',', '<'],
  ['Period', '.', '>'],
  ['Slash', '/', '?'],
  ...'abcdefghijklmnopqrstuvwxyz'
    .split('')
    .map((c) => [`Key${c.toUpperCase()}`, c, c.toUpperCase()] as const),
];

const strokes = new Map<string, Stroke>([
  [' ', { keysym: 0x20, code: 'Space', shift: false }],
  ['\n', { keysym: 0xff0d, code: 'Enter', shift: false }],
  ['\t', { keysym: 0xff09, code: 'Tab', shift: false }],
]);
for (const [code, plain, shifted] of keys) {
  strokes.set(plain, { keysym: plain.charCodeAt(0), code, shift: false });
  strokes.set(shifted, { keysym: shifted.charCodeAt(0), code, shift: true });
}

/** The keys that type a text, and what of it no key types. */
export function strokesOf(text: string): { strokes: Stroke[]; missing: string[] } {
  const out: Stroke[] = [];
  const missing = new Set<string>();
  for (const c of text.replaceAll('\r\n', '\n').replaceAll('\r', '\n')) {
    const stroke = strokes.get(c);
    if (stroke) out.push(stroke);
    else missing.add(c);
  }
  return { strokes: out, missing: [...missing] };
}

/** What keys are sent to. */
export interface Keyboard {
  sendKey(keysym: number, code: string | null, down?: boolean): void;
}

/** A guest's keyboard holds 16 bytes: what comes faster is lost. */
const STROKE_MS = 25;

const SHIFT = [0xffe1, 'ShiftLeft'] as const;

/** Presses keys one after the other, until all are or the signal says to stop. */
export async function press(
  keyboard: Keyboard,
  all: readonly Stroke[],
  signal: AbortSignal,
): Promise<void> {
  for (const { keysym, code, shift } of all) {
    if (signal.aborted) return;
    if (shift) keyboard.sendKey(...SHIFT, true);
    keyboard.sendKey(keysym, code);
    if (shift) keyboard.sendKey(...SHIFT, false);
    await new Promise((done) => setTimeout(done, STROKE_MS));
  }
}
