import { useRef } from 'react';
import { resolve } from './color';
import type { Source } from './source';
import { useDrawing } from './useDrawing';
import classes from './charts.module.css';

interface Props {
  source: Source;
  /** CSS colours, one per series. */
  colors: readonly string[];
  height?: number;
  /** Top of the scale; without it the largest value. */
  max?: number;
  label: string;
  /** How many seconds are in view; less than that is drawn from the right. */
  span: number;
}

/** A small picture of the last minutes, without axes. */
export function Sparkline({ source, colors, height = 34, max, label, span }: Props) {
  const ref = useRef<HTMLCanvasElement>(null);
  useDrawing(ref, source.subscribe, () => {
    if (ref.current) paint(ref.current, source.read(), { colors, max, span });
  });
  return (
    <canvas ref={ref} className={classes.spark} style={{ height }} role="img" aria-label={label} />
  );
}

interface Look {
  colors: readonly string[];
  max: number | undefined;
  span: number;
}

function paint(
  canvas: HTMLCanvasElement,
  [times, ...columns]: ReturnType<Source['read']>,
  { colors, max, span }: Look,
): void {
  const ratio = window.devicePixelRatio || 1;
  const w = canvas.clientWidth;
  const h = canvas.clientHeight;
  if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(h * ratio);
  }
  const g = canvas.getContext('2d');
  if (!g) return;
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, w, h);
  const last = times.at(-1);
  if (last === undefined) return;
  const first = last - span;
  let top = max ?? 0;
  if (max === undefined) {
    const seen = times.findIndex((t) => t >= first);
    for (const c of columns) for (const x of c.slice(seen)) top = Math.max(top, x ?? 0);
  }
  if (top <= 0) top = 1;
  const style = getComputedStyle(canvas);
  columns.forEach((column, s) => {
    const color = resolve(style, colors[s] ?? 'currentColor');
    const x = (i: number) => (((times[i] ?? first) - first) / (last - first)) * w;
    const y = (v: number) => h - 1.5 - (Math.min(v, top) / top) * (h - 3);
    line(g, column, x, y);
    g.strokeStyle = color;
    g.lineWidth = 1.5;
    g.lineJoin = 'round';
    g.stroke();
    if (s > 0) return;
    fillBelow(g, column, x, y, h);
    g.globalAlpha = 0.14;
    g.fillStyle = color;
    g.fill();
    g.globalAlpha = 1;
  });
}

type Scale = (n: number) => number;

function line(g: CanvasRenderingContext2D, column: (number | null)[], x: Scale, y: Scale): void {
  g.beginPath();
  let down = false;
  column.forEach((v, i) => {
    if (v === null) {
      down = false;
      return;
    }
    if (down) g.lineTo(x(i), y(v));
    else g.moveTo(x(i), y(v));
    down = true;
  });
}

function fillBelow(
  g: CanvasRenderingContext2D,
  column: (number | null)[],
  x: Scale,
  y: Scale,
  h: number,
): void {
  g.beginPath();
  let start = -1;
  const end = (i: number) => {
    if (start >= 0) {
      g.lineTo(x(i), h);
      g.lineTo(x(start), h);
      g.closePath();
    }
    start = -1;
  };
  column.forEach((v, i) => {
    if (v === null) {
      end(i - 1);
      return;
    }
    if (start < 0) {
      start = i;
      g.moveTo(x(i), y(v));
    } else {
      g.lineTo(x(i), y(v));
    }
  });
  end(column.length - 1);
}
