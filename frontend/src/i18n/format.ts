import { useMemo } from 'react';
import { useTranslation } from 'react-i18next';
import type { Lang } from '.';

/** How numbers and times are written in the chosen language, always with units. */
export interface Format {
  /** 1.5 GiB */
  bytes: (n: number) => string;
  /** 1.5 MiB/s */
  rate: (n: number) => string;
  /** 1,240 IOPS */
  iops: (n: number) => string;
  /** 12 % from 0.12 */
  percent: (share: number) => string;
  /** 0.8 ms from 0.0008 s */
  latency: (seconds: number) => string;
  count: (n: number) => string;
  /** 14:02:11 from Unix milliseconds */
  time: (ms: number) => string;
  dateTime: (ms: number | string) => string;
  /** 14:02 from Unix milliseconds */
  minute: (ms: number) => string;
  /** 3 Mar from Unix milliseconds */
  day: (ms: number) => string;
  /** Mar 2026 from Unix milliseconds */
  month: (ms: number) => string;
  /** The time alone if it is of today. */
  moment: (ms: number | string) => string;
  /** 3 min ago, in 2 h */
  ago: (ms: number | string) => string;
  /** 1 h 20 min from seconds */
  duration: (seconds: number) => string;
}

const locales: Record<Lang, string> = { en: 'en-GB', de: 'de-DE' };
const NBSP = '\u00a0';
const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

export function makeFormat(lang: Lang): Format {
  const locale = locales[lang];
  const number = (digits: number) =>
    new Intl.NumberFormat(locale, { maximumFractionDigits: digits });
  const whole = number(0);
  const tenth = number(1);
  const hundredth = number(2);
  const clock = new Intl.DateTimeFormat(locale, {
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    hourCycle: 'h23',
  });
  const full = new Intl.DateTimeFormat(locale, {
    dateStyle: 'medium',
    timeStyle: 'short',
    hourCycle: 'h23',
  });
  const minutes = new Intl.DateTimeFormat(locale, {
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
  });
  const months = new Intl.DateTimeFormat(locale, { month: 'short', year: 'numeric' });
  const date = new Intl.DateTimeFormat(locale, { day: 'numeric', month: 'short' });
  const relative = new Intl.RelativeTimeFormat(locale, { numeric: 'auto', style: 'short' });
  const precise = (n: number) => (n >= 100 ? whole : n >= 10 ? tenth : hundredth).format(n);

  const bytes = (n: number) => {
    let i = 0;
    let x = Math.abs(n);
    while (x >= 1024 && i < units.length - 1) {
      x /= 1024;
      i++;
    }
    const sign = n < 0 ? '-' : '';
    return `${sign}${i === 0 ? whole.format(x) : precise(x)}${NBSP}${units[i] ?? ''}`;
  };
  return {
    bytes,
    rate: (n) => `${bytes(n)}/s`,
    iops: (n) => `${whole.format(n)}${NBSP}IOPS`,
    percent: (share) => `${(share < 0.0995 ? tenth : whole).format(share * 100)}${NBSP}%`,
    latency: (s) => {
      if (s === 0) return `0${NBSP}ms`;
      if (s < 0.001) return `${whole.format(s * 1e6)}${NBSP}µs`;
      if (s < 1) return `${precise(s * 1e3)}${NBSP}ms`;
      return `${precise(s)}${NBSP}s`;
    },
    count: (n) => whole.format(n),
    time: (ms) => clock.format(ms),
    dateTime: (ms) => full.format(new Date(ms)),
    minute: (ms) => minutes.format(ms),
    day: (ms) => date.format(ms),
    month: (ms) => months.format(ms),
    moment: (when) => {
      const d = new Date(when);
      const today = d.toDateString() === new Date().toDateString();
      return today ? clock.format(d) : full.format(d);
    },
    ago: (when) => {
      const s = (new Date(when).getTime() - Date.now()) / 1000;
      const a = Math.abs(s);
      if (a < 60) return relative.format(Math.round(s), 'second');
      if (a < 3600) return relative.format(Math.round(s / 60), 'minute');
      if (a < 86_400) return relative.format(Math.round(s / 3600), 'hour');
      return relative.format(Math.round(s / 86_400), 'day');
    },
    duration: (seconds) => {
      const s = Math.max(0, Math.round(seconds));
      const h = Math.floor(s / 3600);
      const m = Math.floor((s % 3600) / 60);
      if (h > 0) return `${h}${NBSP}h ${m}${NBSP}min`;
      if (m > 0) return `${m}${NBSP}min ${s % 60}${NBSP}s`;
      return `${s}${NBSP}s`;
    },
  };
}

export function useFormat(): Format {
  const { i18n } = useTranslation();
  const lang: Lang = i18n.language === 'de' ? 'de' : 'en';
  return useMemo(() => makeFormat(lang), [lang]);
}
