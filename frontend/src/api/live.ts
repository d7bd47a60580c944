import type { EventFrame, Frame, MetricsFrame, Topic } from './types';

export type LinkState = 'connecting' | 'open' | 'down';

/** What a LiveBus needs of a websocket; the browser's own is one. */
export interface Socket {
  onopen: ((e: Event) => unknown) | null;
  onmessage: ((e: MessageEvent) => unknown) | null;
  onclose: ((e: CloseEvent) => unknown) | null;
  send(data: string): void;
  close(): void;
}

export interface LiveOptions {
  /** Opens a socket, or says that there is nothing to log in with yet. */
  open: () => Socket | undefined;
  onMetrics: (frame: MetricsFrame) => void;
  onEvent: (frame: EventFrame) => void;
  /** Called after frames may have been missed: refetch what is shown. */
  onGap: (topics: Topic[]) => void;
  onState: (state: LinkState) => void;
}

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
/** Metrics come every second; this long without any means that the link is dead. */
const SILENCE_MS = 12_000;

/**
 * One websocket per cluster. Topics are counted: the first who wants one
 * subscribes, the last who leaves unsubscribes. After a break it connects again,
 * with growing pauses, and asks for everything again.
 */
export class LiveBus {
  #options: LiveOptions;
  #wanted = new Map<Topic, number>();
  #seq = new Map<Topic, number>();
  #socket: Socket | undefined;
  #state: LinkState = 'down';
  #failures = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #silence: ReturnType<typeof setTimeout> | undefined;
  #opened = false;

  constructor(options: LiveOptions) {
    this.#options = options;
  }

  get state(): LinkState {
    return this.#state;
  }

  /** Wants a topic until the function it returns is called. */
  subscribe(topic: Topic): () => void {
    const count = this.#wanted.get(topic) ?? 0;
    this.#wanted.set(topic, count + 1);
    if (count === 0 && this.#state === 'open') {
      this.#ask('subscribe', topic);
      this.#listen(SILENCE_MS);
    }
    if (!this.#socket && this.#retry === undefined) this.connect();
    let done = false;
    return () => {
      if (done) return;
      done = true;
      const left = (this.#wanted.get(topic) ?? 1) - 1;
      if (left > 0) {
        this.#wanted.set(topic, left);
        return;
      }
      this.#wanted.delete(topic);
      this.#seq.delete(topic);
      if (this.#state !== 'open') return;
      this.#ask('unsubscribe', topic);
      this.#listen(SILENCE_MS);
    };
  }

  /** Connects now, without waiting for the pause to end. */
  connect(): void {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    if (this.#socket) return;
    const socket = this.#options.open();
    if (!socket) return;
    this.#socket = socket;
    this.#set('connecting');
    this.#listen(SILENCE_MS);
    socket.onopen = () => this.#onOpen();
    socket.onmessage = (e) => this.#onMessage(e.data);
    socket.onclose = () => {
      if (this.#socket === socket) this.#onClose();
    };
  }

  /** Ends the connection for good; subscriptions are kept for a later connect. */
  close(): void {
    clearTimeout(this.#retry);
    clearTimeout(this.#silence);
    this.#retry = undefined;
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.close();
    this.#set('down');
  }

  #onOpen(): void {
    this.#failures = 0;
    this.#set('open');
    this.#listen(SILENCE_MS);
    this.#seq.clear();
    for (const topic of this.#wanted.keys()) this.#ask('subscribe', topic);
    // What happened while nobody listened is in the history, not in the stream.
    if (this.#opened) this.#options.onGap([...this.#wanted.keys()]);
    this.#opened = true;
  }

  #onMessage(data: unknown): void {
    this.#listen(SILENCE_MS);
    const frame = parseFrame(data);
    if (!frame || !this.#wanted.has(frame.topic)) return;
    const last = this.#seq.get(frame.topic);
    this.#seq.set(frame.topic, frame.seq);
    if (last !== undefined && frame.seq !== last + 1) this.#options.onGap([frame.topic]);
    if (frame.topic === 'events') this.#options.onEvent(frame);
    else this.#options.onMetrics(frame);
  }

  #onClose(): void {
    clearTimeout(this.#silence);
    this.#socket = undefined;
    this.#set('down');
    const base = Math.min(FIRST_WAIT_MS * 2 ** this.#failures, LONGEST_WAIT_MS);
    this.#failures++;
    // Half of the pause is random, so that a thousand pages do not return at once.
    const wait = base / 2 + (Math.random() * base) / 2;
    this.#retry = setTimeout(() => this.connect(), wait);
  }

  /** Gives the link up if nothing comes for so long, where something has to come. */
  #listen(ms: number): void {
    clearTimeout(this.#silence);
    if (!this.#hasMetrics() && this.#state === 'open') return;
    this.#silence = setTimeout(() => {
      const socket = this.#socket;
      if (!socket) return;
      socket.onclose = null;
      socket.close();
      this.#onClose();
    }, ms);
  }

  #hasMetrics(): boolean {
    return [...this.#wanted.keys()].some((t) => t !== 'events');
  }

  #ask(op: 'subscribe' | 'unsubscribe', topic: Topic): void {
    this.#socket?.send(JSON.stringify({ op, topic }));
  }

  #set(state: LinkState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#options.onState(state);
  }
}

function parseFrame(data: unknown): Frame | undefined {
  if (typeof data !== 'string') return undefined;
  try {
    const frame = JSON.parse(data) as Partial<Frame>;
    return typeof frame.topic === 'string' && typeof frame.seq === 'number'
      ? (frame as Frame)
      : undefined;
  } catch {
    return undefined;
  }
}
