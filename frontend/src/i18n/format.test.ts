import { afterEach, describe, expect, it, vi } from 'vitest';
import { makeFormat } from './format';

const en = makeFormat('en');
const de = makeFormat('de');
/** A space that does not break a line, so that a number keeps its unit. */
const plain = (text: string) => text.replaceAll('\u00a0', ' ');

afterEach(() => {
  vi.useRealTimers();
});

describe('numbers with units', () => {
  it.each([
    [0, '0 B'],
    [1, '1 B'],
    [1023, '1,023 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [10 * 2 ** 20 + 2 ** 19, '10.5 MiB'],
    [100 * 2 ** 30, '100 GiB'],
    [256 * 2 ** 40, '256 TiB'],
    [2 ** 63, '8 EiB'],
    [-2048, '-2 KiB'],
  ])('bytes(%d)', (n, want) => {
    expect(plain(en.bytes(n))).toBe(want);
  });

  it.each([
    [0, '0 ms'],
    [0.000_000_4, '0 µs'],
    [0.000_34, '340 µs'],
    [0.001, '1 ms'],
    [0.0123, '12.3 ms'],
    [0.25, '250 ms'],
    [2.5, '2.5 s'],
  ])('latency(%d)', (s, want) => {
    expect(plain(en.latency(s))).toBe(want);
  });

  it.each([
    [0, '0 %'],
    [0.0444, '4.4 %'],
    [0.5, '50 %'],
    [1, '100 %'],
  ])('percent(%d)', (share, want) => {
    expect(plain(en.percent(share))).toBe(want);
  });

  it.each([
    [-3, '0 s'],
    [59.4, '59 s'],
    [60, '1 min 0 s'],
    [3599, '59 min 59 s'],
    [4800, '1 h 20 min'],
    [360_000, '100 h 0 min'],
  ])('duration(%d)', (s, want) => {
    expect(plain(en.duration(s))).toBe(want);
  });

  it('writes rates and IOPS', () => {
    expect(plain(en.rate(3 * 2 ** 20))).toBe('3 MiB/s');
    expect(plain(en.iops(1240.4))).toBe('1,240 IOPS');
  });

  it('writes German numbers in German', () => {
    expect(plain(de.bytes(1536))).toBe('1,5 KiB');
    expect(plain(de.iops(1240))).toBe('1.240 IOPS');
    expect(plain(de.latency(0.0123))).toBe('12,3 ms');
  });

  it('never lets a number and its unit part', () => {
    for (const text of [en.bytes(2048), en.latency(0.1), en.percent(0.5), en.duration(4800)]) {
      expect(text.replace(/ (?=\d)/g, '')).not.toContain(' ');
    }
  });
});

describe('times', () => {
  it('names the day only if it is another one', () => {
    vi.useFakeTimers({ now: new Date(2026, 10, 23, 14, 30) });
    expect(en.moment(new Date(2026, 10, 23, 9, 5, 7).getTime())).toBe('09:05:07');
    expect(en.moment(new Date(2026, 10, 22, 9, 5).getTime())).toContain('22 Nov 2026');
  });

  it('counts from now in the unit that fits', () => {
    const now = new Date(2026, 10, 23, 14, 30).getTime();
    vi.useFakeTimers({ now });
    expect(en.ago(now - 19_000)).toBe('19 sec ago');
    expect(en.ago(now - 3 * 60_000)).toBe('3 min ago');
    expect(de.ago(now - 2 * 3_600_000)).toBe('vor 2 Std.');
    expect(en.ago(now + 2 * 3_600_000)).toBe('in 2 hr');
  });
});
