// Charts that know the API's series: which belong together, their colours and
// units. They read the metrics of the cluster above them.
import { useComputedColorScheme } from '@mantine/core';
import { useCallback, useMemo, useRef } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../api/context';
import type { Metrics, Track } from '../api/metrics';
import type { MetricsTopic, VMHistory } from '../api/types';
import { LiveText } from '../charts/LiveText';
import { Sparkline } from '../charts/Sparkline';
import { TimeChart } from '../charts/TimeChart';
import type { Source } from '../charts/source';
import { useFormat } from '../i18n/format';
import type { Format } from '../i18n/format';
import classes from './parts.module.css';

export type Kind = 'cpu' | 'memory' | 'iops' | 'throughput' | 'latency' | 'network';

interface Spec {
  keys: readonly string[];
  labels: readonly ('cpu' | 'memory' | 'read' | 'write' | 'received' | 'sent')[];
  colors: readonly string[];
  write: (f: Format) => (n: number) => string;
  max?: number;
  floor: number;
  binary?: boolean;
}

const specs: Record<Kind, Spec> = {
  cpu: {
    keys: ['cpu'],
    labels: ['cpu'],
    colors: ['var(--d-cpu)'],
    write: (f) => f.percent,
    max: 1,
    floor: 1,
  },
  memory: {
    keys: ['mem_used'],
    labels: ['memory'],
    colors: ['var(--d-mem)'],
    write: (f) => f.bytes,
    binary: true,
    floor: 2 ** 20,
  },
  iops: {
    keys: ['r_iops', 'w_iops'],
    labels: ['read', 'write'],
    colors: ['var(--d-read)', 'var(--d-write)'],
    write: (f) => f.iops,
    floor: 20,
  },
  throughput: {
    keys: ['r_bps', 'w_bps'],
    labels: ['read', 'write'],
    colors: ['var(--d-read)', 'var(--d-write)'],
    write: (f) => f.rate,
    binary: true,
    floor: 2 ** 20,
  },
  latency: {
    keys: ['r_lat', 'w_lat'],
    labels: ['read', 'write'],
    colors: ['var(--d-read)', 'var(--d-write)'],
    write: (f) => f.latency,
    floor: 0.001,
  },
  network: {
    keys: ['net_rx', 'net_tx'],
    labels: ['received', 'sent'],
    colors: ['var(--d-read)', 'var(--d-write)'],
    write: (f) => f.rate,
    binary: true,
    floor: 2 ** 20,
  },
};

/** The last minutes of some series of one object, kept while on screen. */
export function useSource(topic: MetricsTopic, id: string, keys: readonly string[]): Source {
  const { metrics } = useConnection();
  const track = useRef<Track | undefined>(undefined);
  const names = keys.join(' ');
  return useMemo<Source>(
    () => ({
      read: () => {
        const wanted = names.split(' ');
        return track.current?.read(wanted) ?? [[], ...wanted.map(() => [])];
      },
      subscribe: (tell) => {
        const watched = metrics.watch(topic, id);
        track.current = watched.track;
        const stop = metrics.onFrame(topic, tell);
        return () => {
          stop();
          watched.release();
        };
      },
    }),
    [metrics, topic, id, names],
  );
}

/** Tells of each frame of a topic. */
export function useFrames(topic: MetricsTopic): (tell: () => void) => () => void {
  const { metrics } = useConnection();
  return useCallback((tell: () => void) => metrics.onFrame(topic, tell), [metrics, topic]);
}

interface LiveProps {
  topic: MetricsTopic;
  read: (m: Metrics) => number | undefined;
  write: (n: number) => string;
  name?: string;
  className?: string | undefined;
}

/** One live number with its unit; a dash while there is none. */
export function LiveNumber({ topic, read, write, name, className }: LiveProps) {
  const { metrics } = useConnection();
  const frames = useFrames(topic);
  return (
    <LiveText
      subscribe={frames}
      read={() => {
        const n = read(metrics);
        return n === undefined ? '–' : write(n);
      }}
      className={className}
      {...(name === undefined ? {} : { name })}
    />
  );
}

interface ChartProps {
  topic: MetricsTopic;
  id: string;
  kind: Kind;
  height?: number;
  axes?: boolean;
  /** Top of the memory scale. */
  max?: number | undefined;
  span?: number;
}

/** A heading with the values of now, and the chart of the last minutes. */
export function MetricChart({ topic, id, kind, height, axes, max, span = 120 }: ChartProps) {
  const { t } = useTranslation();
  const format = useFormat();
  const scheme = useComputedColorScheme('light');
  const spec = specs[kind];
  const source = useSource(topic, id, spec.keys);
  const write = spec.write(format);
  const top = max ?? spec.max;
  const title = t(`metric.${kind}`);
  return (
    <div
      className={classes.metric}
      data-chart={kind}
      data-pair={spec.keys.length > 1 ? true : undefined}
    >
      <div className={classes.metricHead}>
        <span className={classes.metricName}>{title}</span>
        {spec.keys.map((key, i) => (
          <span key={key} className={classes.metricValue}>
            <i style={{ background: spec.colors[i] }} aria-hidden="true" />
            {spec.keys.length > 1 && (
              <abbr className={classes.metricLabel} title={t(`metric.${spec.labels[i] ?? 'read'}`)}>
                {t(`metric.short.${spec.labels[i] ?? 'read'}`)}
              </abbr>
            )}
            <LiveNumber
              topic={topic}
              read={(m) => m.value(topic, id, key)}
              write={write}
              name={`${kind}.${key}`}
            />
          </span>
        ))}
      </div>
      <TimeChart
        source={source}
        series={spec.keys.map((_, i) => ({
          label: t(`metric.${spec.labels[i] ?? 'read'}`),
          color: spec.colors[i] ?? '',
        }))}
        label={title}
        format={write}
        formatTime={(s) => format.time(s * 1000)}
        scheme={scheme}
        floor={spec.floor}
        binary={spec.binary ?? false}
        span={span}
        {...(top === undefined ? {} : { max: top })}
        {...(height === undefined ? {} : { height })}
        {...(axes === undefined ? {} : { axes })}
      />
    </div>
  );
}

/** Ticks say as much of a moment as tells it from the others in view. */
function tick(format: Format, span: number): (ms: number) => string {
  if (span <= DAY) return format.minute;
  return span <= YEAR ? format.day : format.month;
}

const DAY = 86_400;
const YEAR = 365 * DAY;

interface PastProps extends Pick<ChartProps, 'kind' | 'height' | 'max'> {
  past: VMHistory;
  /** How many seconds are in view. */
  span: number;
}

/** A heading, and the chart of a time that is past. */
export function PastChart({ past, kind, height, max, span }: PastProps) {
  const { t } = useTranslation();
  const format = useFormat();
  const scheme = useComputedColorScheme('light');
  const spec = specs[kind];
  const source = useMemo<Source>(
    () => ({
      read: () => [past.t.map((ms) => ms / 1000), ...spec.keys.map((k) => past.series[k] ?? [])],
      subscribe: () => () => undefined,
    }),
    [past, spec],
  );
  const top = max ?? spec.max;
  return (
    <div className={classes.metric} data-chart={kind} data-past={span}>
      <div className={classes.metricHead}>
        <span className={classes.metricName}>{t(`metric.${kind}`)}</span>
        {spec.keys.length > 1 &&
          spec.labels.map((label, i) => (
            <span key={label} className={classes.metricValue}>
              <i style={{ background: spec.colors[i] }} aria-hidden="true" />
              <span className={classes.metricLabel}>{t(`metric.${label}`)}</span>
            </span>
          ))}
      </div>
      <TimeChart
        source={source}
        series={spec.keys.map((_, i) => ({
          label: t(`metric.${spec.labels[i] ?? 'read'}`),
          color: spec.colors[i] ?? '',
        }))}
        label={t(`metric.${kind}`)}
        format={spec.write(format)}
        formatTime={(s) => format.moment(s * 1000)}
        formatTick={(s) => tick(format, span)(s * 1000)}
        scheme={scheme}
        floor={spec.floor}
        binary={spec.binary ?? false}
        span={span}
        axes
        {...(top === undefined ? {} : { max: top })}
        {...(height === undefined ? {} : { height })}
      />
    </div>
  );
}

interface SparkProps extends Pick<ChartProps, 'topic' | 'id' | 'kind' | 'max'> {
  /** The number stands large above the picture instead of beside the name. */
  large?: boolean;
}

/** A picture without axes and the sum of its series as a number. */
export function Spark({ topic, id, kind, max, large }: SparkProps) {
  const { t } = useTranslation();
  const format = useFormat();
  const scheme = useComputedColorScheme('light');
  const spec = specs[kind];
  const source = useSource(topic, id, spec.keys);
  const top = max ?? spec.max;
  const newest = (m: Metrics) => {
    if (kind !== 'latency') return m.sum(topic, id, spec.keys);
    const both = spec.keys.map((k) => m.value(topic, id, k)).filter((x) => x !== undefined);
    return both.length === 0 ? undefined : Math.max(...both);
  };
  return (
    <div className={classes.sparkBox} data-chart={kind} data-large={large ? true : undefined}>
      <div className={classes.metricHead}>
        <span className={classes.metricName}>{t(`metric.${kind}`)}</span>
        <LiveNumber
          topic={topic}
          read={newest}
          write={spec.write(format)}
          name={kind}
          className={classes.sparkValue}
        />
      </div>
      <Sparkline
        key={scheme}
        source={source}
        colors={spec.colors}
        span={120}
        label={t(`metric.${kind}`)}
        {...(top === undefined ? {} : { max: top })}
      />
    </div>
  );
}

/** Says since when an object's numbers are old; empty while they are fresh. */
export function StaleNote({ topic, id }: { topic: MetricsTopic; id: string }) {
  const { t } = useTranslation();
  const format = useFormat();
  const { metrics } = useConnection();
  return (
    <LiveText
      className={classes.stale}
      subscribe={everySecond}
      read={() => {
        const at = metrics.sampledAt(topic, id);
        if (at === undefined || Date.now() - at < STALE_MS) return '';
        return t('stale.asOf', { time: format.time(at) });
      }}
    />
  );
}

/** Numbers older than this are not live. */
const STALE_MS = 6000;

/** Ticks each second: age grows also while nothing arrives. */
function everySecond(tell: () => void): () => void {
  const timer = setInterval(tell, 1000);
  return () => clearInterval(timer);
}
