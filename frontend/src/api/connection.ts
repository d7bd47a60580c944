import type { QueryClient } from '@tanstack/react-query';
import type { Platform } from '../platform';
import { address, call, lines } from './http';
import type { Call, Origin } from './http';
import { LiveBus } from './live';
import type { LinkState } from './live';
import { Metrics, KEEP_SECONDS } from './metrics';
import type { EventFrame, History, MetricsTopic, Topic } from './types';

const LIVE_PROTOCOL = 'drystone.v1';
const CONSOLE_PROTOCOL = 'drystone.console.v1';

/** Which lists are old news once the record of a noun has changed. */
const affects: Record<string, readonly string[]> = {
  vms: ['vms', 'cluster', 'volumes', 'tasks', 'audit'],
  volumes: ['volumes', 'images', 'pool', 'cluster', 'vms', 'tasks', 'audit'],
  disks: ['disks', 'pool', 'cluster', 'volumes', 'audit'],
  nodes: ['nodes', 'disks', 'cluster', 'vms', 'audit'],
  cluster: ['cluster', 'nodes', 'audit'],
  tokens: ['tokens', 'audit'],
};

/** Changes come in bursts; one refetch a second is enough for a person. */
const REFETCH_MS = 700;

/**
 * Everything the page holds about one cluster: how to call it, its live stream
 * and its metrics. There is one per cluster for as long as the page lives.
 */
export class Connection {
  readonly id: string;
  readonly bus: LiveBus;
  readonly metrics: Metrics;
  readonly origin: Origin;
  #platform: Platform;
  #queries: QueryClient;
  #stateListeners = new Set<() => void>();
  #stale = new Set<string>();
  #refetch: ReturnType<typeof setTimeout> | undefined;
  #lastContact: number | undefined;

  constructor(id: string, platform: Platform, queries: QueryClient) {
    this.id = id;
    this.#platform = platform;
    this.#queries = queries;
    this.origin = { base: platform.apiBase(id), token: () => platform.token(id) };
    this.metrics = new Metrics((topic) => this.history(topic));
    this.bus = new LiveBus({
      open: () => this.#openSocket('/live', LIVE_PROTOCOL, [`auth.${this.origin.token() ?? ''}`]),
      onMetrics: (frame) => {
        this.#lastContact = Date.now();
        this.metrics.push(frame);
      },
      onEvent: (frame) => this.#onEvent(frame),
      onGap: (topics) => this.#onGap(topics),
      onState: (state) => this.#onState(state),
    });
  }

  call<T>(path: string, c?: Call): Promise<T> {
    return call<T>(this.origin, path, c);
  }

  /** Like call, of what answers line by line while it goes on. */
  lines(path: string, c: Call, each: (value: unknown) => void): Promise<void> {
    return lines(this.origin, path, c, each);
  }

  history(topic: MetricsTopic): Promise<History> {
    return this.call('/metrics/history', { query: { topic, seconds: KEEP_SECONDS } });
  }

  /** Opens a console with a ticket that this session asked for before. */
  openConsole(path: string, ticket: string): WebSocket {
    const protocols = [CONSOLE_PROTOCOL, `ticket.${ticket}`];
    const token = this.origin.token();
    if (token !== undefined) protocols.push(`auth.${token}`);
    return new WebSocket(this.#socketAddress(path), protocols);
  }

  /** Keeps the session's token, or forgets it and everything that was read. */
  setToken(token: string | undefined): void {
    this.#platform.keep(this.id, token);
    this.bus.close();
    if (token === undefined) {
      this.#queries.removeQueries({ queryKey: ['c', this.id] });
    } else {
      void this.#queries.invalidateQueries({ queryKey: ['c', this.id] });
      this.bus.connect();
    }
  }

  get link(): LinkState {
    return this.bus.state;
  }

  /** When something was last heard, in Unix milliseconds. */
  get lastContact(): number | undefined {
    return this.#lastContact;
  }

  onLink(listener: () => void): () => void {
    this.#stateListeners.add(listener);
    return () => this.#stateListeners.delete(listener);
  }

  #openSocket(path: string, protocol: string, more: string[]): WebSocket | undefined {
    if (this.origin.token() === undefined) return undefined;
    return new WebSocket(this.#socketAddress(path), [protocol, ...more]);
  }

  #socketAddress(path: string): string {
    const url = new URL(address(this.origin, path), location.href);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    return url.href;
  }

  #onEvent(frame: EventFrame): void {
    this.#lastContact = Date.now();
    switch (frame.kind) {
      case 'resync':
        void this.#queries.invalidateQueries({ queryKey: ['c', this.id] });
        return;
      case 'changed':
        for (const noun of frame.objects ?? []) {
          for (const key of affects[noun] ?? [noun]) this.#stale.add(key);
        }
        if (this.#refetch === undefined) {
          this.#refetch = setTimeout(() => this.#flush(), REFETCH_MS);
        }
    }
  }

  #flush(): void {
    this.#refetch = undefined;
    const keys = [...this.#stale];
    this.#stale.clear();
    for (const key of keys) void this.#queries.invalidateQueries({ queryKey: ['c', this.id, key] });
  }

  #onGap(topics: Topic[]): void {
    for (const topic of topics) {
      if (topic === 'events') {
        void this.#queries.invalidateQueries({ queryKey: ['c', this.id] });
      } else {
        this.metrics.refill(topic);
      }
    }
  }

  #onState(state: LinkState): void {
    // A refused websocket does not say why; asking for the session does.
    if (state === 'down' && this.origin.token() !== undefined) {
      void this.#queries.invalidateQueries({ queryKey: ['c', this.id, 'session'] });
    }
    for (const tell of this.#stateListeners) tell();
  }
}

/** Hands out the one Connection of each cluster. */
export class Connections {
  #platform: Platform;
  #queries: QueryClient;
  #open = new Map<string, Connection>();

  constructor(platform: Platform, queries: QueryClient) {
    this.#platform = platform;
    this.#queries = queries;
  }

  get(id: string): Connection {
    let c = this.#open.get(id);
    if (!c) {
      c = new Connection(id, this.#platform, this.#queries);
      this.#open.set(id, c);
    }
    return c;
  }

  /** Forgets a cluster that was removed. */
  drop(id: string): void {
    this.#open.get(id)?.bus.close();
    this.#open.delete(id);
    this.#queries.removeQueries({ queryKey: ['c', id] });
  }
}
