import { useEffect, useRef } from 'react';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { alpha, resolve } from './color';
import type { Source } from './source';
import { useDrawing } from './useDrawing';
import classes from './charts.module.css';

export interface Series {
  label: string;
  /** A CSS colour or var(--name). */
  color: string;
}

interface Props {
  source: Source;
  series: readonly Series[];
  /** What the picture shows, for who cannot see it. */
  label: string;
  format: (value: number) => string;
  formatTime: (seconds: number) => string;
  /** How ticks are written, if not as times are. */
  formatTick?: (seconds: number) => string;
  height?: number;
  /** Top of the scale if it is fixed, such as 1 for a share. */
  max?: number;
  /** The lowest top of a scale that follows the data. */
  floor?: number;
  /** How many seconds are in view. */
  span?: number;
  axes?: boolean;
  /** The values are bytes: ticks stand at powers of two. */
  binary?: boolean;
  /** Changes when colours do, so that the chart is made anew. */
  scheme: string;
}

/** A chart of the last minutes that moves by itself. Data in, picture out. */
export function TimeChart(p: Props) {
  const host = useRef<HTMLDivElement>(null);
  const tip = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(p);
  useEffect(() => {
    latest.current = p;
  });
  const names = p.series.map((s) => `${s.label} ${s.color}`).join('|');
  const { scheme, height = 84, axes = false } = p;

  useEffect(() => {
    const el = host.current;
    if (!el) return;
    const u = new uPlot(options(el, tip, latest), latest.current.source.read(), el);
    plot.current = u;
    rescale(u, latest.current);
    const resize = new ResizeObserver(() => {
      if (el.clientWidth > 0 && el.clientWidth !== u.width) {
        u.setSize({ width: el.clientWidth, height });
      }
    });
    resize.observe(el);
    return () => {
      resize.disconnect();
      u.destroy();
      plot.current = null;
    };
  }, [scheme, names, height, axes]);

  useDrawing(host, p.source.subscribe, () => {
    const u = plot.current;
    if (!u) return;
    u.setData(latest.current.source.read(), false);
    rescale(u, latest.current);
  });

  return (
    <div className={classes.chart} style={{ height }}>
      <div ref={host} role="img" aria-label={p.label} className={classes.plot} />
      <div ref={tip} className={classes.tip} aria-hidden="true" />
    </div>
  );
}

function rescale(u: uPlot, p: Props): void {
  const times = u.data[0];
  const last = times.at(-1) ?? Date.now() / 1000;
  let top = p.max ?? p.floor ?? 0;
  if (p.max === undefined) {
    const from = last - (p.span ?? 120);
    for (let s = 1; s < u.data.length; s++) {
      u.data[s]?.forEach((x, i) => {
        if ((times[i] ?? 0) >= from) top = Math.max(top, x ?? 0);
      });
    }
    top = top > 0 ? top * 1.12 : 1;
  }
  u.batch(() => {
    u.setScale('x', { min: last - (p.span ?? 120), max: last });
    u.setScale('y', { min: 0, max: top });
  });
}

/** Seconds between the ticks of time. */
const HOUR = 3600;
const DAY = 24 * HOUR;
const steps = [
  ...[5, 10, 15, 30, 60, 120, 300, 600, 1800],
  ...[HOUR, 2 * HOUR, 4 * HOUR, 6 * HOUR, 12 * HOUR],
  ...[DAY, 2 * DAY, 5 * DAY, 10 * DAY, 30 * DAY, 60 * DAY, 120 * DAY, 240 * DAY],
];

const powersOfTwo = Array.from({ length: 60 }, (_, n) => 2 ** n);

type Ref<T> = React.RefObject<T>;

function options(el: HTMLElement, tip: Ref<HTMLDivElement | null>, p: Ref<Props>): uPlot.Options {
  const style = getComputedStyle(el);
  const css = (name: string) => resolve(style, `var(${name})`);
  const { series, axes = false, height = 84, binary = false } = p.current;
  const axis: uPlot.Axis = {
    stroke: css('--d-dim'),
    grid: { stroke: css('--d-grid'), width: 1 },
    ticks: { show: false },
    font: '11px "Inter Variable", system-ui, sans-serif',
  };
  return {
    width: Math.max(el.clientWidth, 50),
    height,
    padding: axes ? [8, 24, 0, 0] : [4, 0, 2, 0],
    legend: { show: false },
    cursor: {
      y: false,
      drag: { setScale: false, x: false, y: false },
      points: { size: 6 },
    },
    scales: { x: { time: true, auto: false }, y: { auto: false } },
    axes: [
      {
        ...axis,
        show: axes,
        size: 20,
        space: 62,
        incrs: steps,
        values: (_, t) => t.map(p.current.formatTick ?? p.current.formatTime),
      },
      {
        ...axis,
        show: axes,
        size: 64,
        space: 34,
        ...(binary ? { incrs: powersOfTwo } : {}),
        values: (_, v) => v.map((x) => p.current.format(x)),
      },
    ],
    series: [
      {},
      ...series.map((s, i) => {
        const color = resolve(style, s.color);
        return {
          stroke: color,
          width: 1.5,
          points: { show: true, size: 4, fill: color, filter: alone },
          ...(i === 0 ? { fill: fade(color) } : {}),
        };
      }),
    ],
    hooks: { setCursor: [(u) => showTip(u, tip.current, p.current)] },
  };
}

/** The values without a neighbour, which no line is drawn to. */
function alone(u: uPlot, series: number): number[] {
  const values = u.data[series] ?? [];
  const known = (i: number) => values[i] !== null && values[i] !== undefined;
  return [...values.keys()].filter((i) => known(i) && !known(i - 1) && !known(i + 1));
}

function fade(color: string): (u: uPlot) => CanvasGradient | string {
  return (u) => {
    const { top, height } = u.bbox;
    if (!Number.isFinite(top) || !Number.isFinite(height) || height <= 0) return 'transparent';
    const g = u.ctx.createLinearGradient(0, top, 0, top + height);
    g.addColorStop(0, alpha(color, 0.28));
    g.addColorStop(1, alpha(color, 0.02));
    return g;
  };
}

function showTip(u: uPlot, tip: HTMLDivElement | null, p: Props): void {
  if (!tip) return;
  const i = u.cursor.idx;
  const left = u.cursor.left ?? -1;
  const t = i === null || i === undefined ? undefined : u.data[0][i];
  if (left < 0 || t === undefined || i === null || i === undefined) {
    tip.style.opacity = '0';
    return;
  }
  const values = p.series.map((s, n) => {
    const x = u.data[n + 1]?.[i];
    return `${s.label} ${x === null || x === undefined ? '–' : p.format(x)}`;
  });
  tip.textContent = [p.formatTime(t), ...values].join('  ·  ');
  tip.style.opacity = '1';
  const room = u.width - tip.offsetWidth;
  tip.style.transform = `translateX(${Math.max(0, Math.min(left + 12, room))}px)`;
}
