import type { History, MetricsFrame, MetricsTopic } from './types';

/** How many seconds a chart can look back. */
export const KEEP_SECONDS = 300;

/** A pause longer than this is drawn as a gap, not as a line. */
const GAP_MS = 3500;

/** The value of a second that nobody has. */
type Value = number | null;

/**
 * The last minutes of one object, one array per series beside one of times. The
 * arrays have room for twice what is kept, so that a push moves memory only once
 * in KEEP_SECONDS.
 */
export class Track {
  #t = new Float64Array(KEEP_SECONDS * 2);
  #series = new Map<string, Float64Array>();
  #end = 0;

  get length(): number {
    return Math.min(this.#end, KEEP_SECONDS);
  }

  get lastTime(): number {
    return this.#end === 0 ? 0 : (this.#t[this.#end - 1] ?? 0);
  }

  push(t: number, values: (key: string) => Value, keys: Iterable<string>): void {
    if (t <= this.lastTime) return;
    if (this.#end > 0 && t - this.lastTime > GAP_MS)
      this.#append(this.lastTime + 1, () => null, []);
    this.#append(t, values, keys);
  }

  /** Puts a history in front of what is there; what both know stays once. */
  fill(times: number[], values: (key: string, row: number) => Value, keys: string[]): void {
    const later = new Track();
    for (let i = this.#end - this.length; i < this.#end; i++) {
      later.push(this.#t[i] ?? 0, (k) => this.#at(k, i), this.#series.keys());
    }
    const first = later.length > 0 ? (later.#t[0] ?? Infinity) : Infinity;
    this.#end = 0;
    this.#series.clear();
    times.forEach((t, row) => {
      if (t < first) this.push(t, (k) => values(k, row), keys);
    });
    for (let i = 0; i < later.#end; i++) {
      this.push(later.#t[i] ?? 0, (k) => later.#at(k, i), later.#series.keys());
    }
  }

  /** Seconds since 1970, and each series beside them: what uPlot draws. */
  read(keys: readonly string[]): [number[], ...Value[][]] {
    const from = this.#end - this.length;
    const times = Array.from(this.#t.subarray(from, this.#end), (ms) => ms / 1000);
    const columns = keys.map((key) => {
      const a = this.#series.get(key);
      if (!a) return times.map(() => null);
      return Array.from(a.subarray(from, this.#end), (x) => (Number.isNaN(x) ? null : x));
    });
    return [times, ...columns];
  }

  #at(key: string, i: number): Value {
    const x = this.#series.get(key)?.[i];
    return x === undefined || Number.isNaN(x) ? null : x;
  }

  #append(t: number, values: (key: string) => Value, keys: Iterable<string>): void {
    if (this.#end === this.#t.length) {
      this.#t.copyWithin(0, KEEP_SECONDS);
      for (const a of this.#series.values()) a.copyWithin(0, KEEP_SECONDS);
      this.#end = KEEP_SECONDS;
    }
    for (const key of keys) {
      if (!this.#series.has(key)) {
        this.#series.set(key, new Float64Array(this.#t.length).fill(Number.NaN));
      }
    }
    for (const [key, a] of this.#series) a[this.#end] = values(key) ?? Number.NaN;
    this.#t[this.#end] = t;
    this.#end++;
  }
}

interface TopicData {
  frame: MetricsFrame | undefined;
  index: Map<string, number>;
  tracks: Map<string, { track: Track; users: number }>;
  listeners: Set<() => void>;
  loading: boolean;
}

/**
 * The metrics of one cluster, outside of React: of every object the last frame,
 * and of each that is watched its last minutes. Listeners are told once a frame.
 */
export class Metrics {
  #topics = new Map<MetricsTopic, TopicData>();
  #load: (topic: MetricsTopic) => Promise<History>;

  constructor(load: (topic: MetricsTopic) => Promise<History>) {
    this.#load = load;
  }

  onFrame(topic: MetricsTopic, listener: () => void): () => void {
    const data = this.#topic(topic);
    data.listeners.add(listener);
    return () => data.listeners.delete(listener);
  }

  push(frame: MetricsFrame): void {
    const data = this.#topic(frame.topic);
    data.frame = frame;
    data.index = new Map(frame.ids.map((id, i) => [id, i]));
    for (const [id, { track }] of data.tracks) {
      const i = data.index.get(id);
      if (i !== undefined)
        track.push(frame.t, (k) => frame.v[k]?.[i] ?? null, Object.keys(frame.v));
    }
    for (const tell of data.listeners) tell();
  }

  /** The newest value, or undefined if there is none. */
  value(topic: MetricsTopic, id: string, key: string): number | undefined {
    const data = this.#topic(topic);
    const i = data.index.get(id);
    return i === undefined ? undefined : (data.frame?.v[key]?.[i] ?? undefined);
  }

  /** The sum of several newest values, or undefined if none is there. */
  sum(topic: MetricsTopic, id: string, keys: readonly string[]): number | undefined {
    let total: number | undefined;
    for (const key of keys) {
      const x = this.value(topic, id, key);
      if (x !== undefined) total = (total ?? 0) + x;
    }
    return total;
  }

  /** When the newest values of an object were taken, in Unix milliseconds. */
  sampledAt(topic: MetricsTopic, id: string): number | undefined {
    const { frame, index } = this.#topic(topic);
    const i = index.get(id);
    return frame && i !== undefined ? frame.t - (frame.age[i] ?? 0) * 1000 : undefined;
  }

  frameTime(topic: MetricsTopic): number | undefined {
    return this.#topic(topic).frame?.t;
  }

  /** Keeps an object's last minutes, from the history on, until released. */
  watch(topic: MetricsTopic, id: string): { track: Track; release: () => void } {
    const data = this.#topic(topic);
    let entry = data.tracks.get(id);
    if (!entry) {
      entry = { track: new Track(), users: 0 };
      data.tracks.set(id, entry);
      this.refill(topic);
    }
    const kept = entry;
    kept.users++;
    let done = false;
    const release = () => {
      if (done) return;
      done = true;
      kept.users--;
      if (kept.users === 0 && data.tracks.get(id) === kept) data.tracks.delete(id);
    };
    return { track: kept.track, release };
  }

  /** Reads the history again; several calls in one turn are one request. */
  refill(topic: MetricsTopic): void {
    const data = this.#topic(topic);
    if (data.loading || data.tracks.size === 0) return;
    data.loading = true;
    void Promise.resolve()
      .then(() => this.#load(topic))
      .then((history) => this.#fill(data, history))
      // Without a history the charts start empty and fill up by themselves.
      .catch(() => undefined)
      .finally(() => {
        data.loading = false;
      });
  }

  #fill(data: TopicData, history: History): void {
    const keys = Object.keys(history.series);
    history.ids.forEach((id, i) => {
      data.tracks
        .get(id)
        ?.track.fill(history.t, (key, row) => history.series[key]?.[row]?.[i] ?? null, keys);
    });
    for (const tell of data.listeners) tell();
  }

  #topic(topic: MetricsTopic): TopicData {
    let data = this.#topics.get(topic);
    if (!data) {
      data = {
        frame: undefined,
        index: new Map(),
        tracks: new Map(),
        listeners: new Set(),
        loading: false,
      };
      this.#topics.set(topic, data);
    }
    return data;
  }
}
