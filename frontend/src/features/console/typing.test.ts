import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { press, strokesOf } from './typing';

describe('typing a text', () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it('has a key for all of ASCII that can be read, and for lines', () => {
    let text = '\t\r\n\n';
    for (let c = 0x20; c < 0x7f; c++) text += String.fromCharCode(c);
    const { strokes, missing } = strokesOf(text);
    expect(missing).toEqual([]);
    expect(strokes).toHaveLength(95 + 3);
    expect(strokes.filter((s) => s.code === 'Enter')).toHaveLength(2);
    expect(new Set(strokes.map((s) => `${s.code} ${s.shift}`)).size).toBe(95 + 2);
  });

  it('says once what no key types', () => {
    expect(strokesOf('straße, Größe').missing).toEqual(['ß', 'ö']);
  });

  it('holds Shift for what needs it, and stops when it is told to', async () => {
    const sent: string[] = [];
    const stop = new AbortController();
    const all = press(
      {
        sendKey: (keysym, code, down) => {
          sent.push(`${code} ${keysym.toString(16)} ${down ?? 'press'}`);
        },
      },
      strokesOf('aB!c').strokes,
      stop.signal,
    );
    await vi.advanceTimersByTimeAsync(60);
    stop.abort();
    await vi.advanceTimersByTimeAsync(1000);
    await all;
    expect(sent).toEqual([
      'KeyA 61 press',
      'ShiftLeft ffe1 true',
      'KeyB 42 press',
      'ShiftLeft ffe1 false',
      'ShiftLeft ffe1 true',
      'Digit1 21 press',
      'ShiftLeft ffe1 false',
    ]);
  });
});
