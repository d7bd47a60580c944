import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { LiveBus } from './live';
import type { Socket } from './live';
import type { EventFrame, MetricsFrame, Topic } from './types';

/** The other end of a websocket, played by the test. */
class Wire implements Socket {
  onopen: Socket['onopen'] = null;
  onmessage: Socket['onmessage'] = null;
  onclose: Socket['onclose'] = null;
  sent: string[] = [];
  closed = false;

  send(data: string): void {
    this.sent.push(data);
  }

  close(): void {
    this.closed = true;
  }

  accept(): void {
    this.onopen?.(new Event('open'));
  }

  say(frame: object | string): void {
    const data = typeof frame === 'string' ? frame : JSON.stringify(frame);
    this.onmessage?.(new MessageEvent('message', { data }));
  }

  drop(): void {
    this.onclose?.(new CloseEvent('close'));
  }
}

const frame = (seq: number, topic = 'nodes') => ({ topic, seq, t: seq, ids: [], v: {}, age: [] });

function setUp() {
  const wires: Wire[] = [];
  const seen: { metrics: MetricsFrame[]; events: EventFrame[]; gaps: Topic[][] } = {
    metrics: [],
    events: [],
    gaps: [],
  };
  const states: string[] = [];
  const bus = new LiveBus({
    open: () => {
      const w = new Wire();
      wires.push(w);
      return w;
    },
    onMetrics: (f) => seen.metrics.push(f),
    onEvent: (f) => seen.events.push(f),
    onGap: (topics) => seen.gaps.push(topics),
    onState: (s) => states.push(s),
  });
  const wire = () => wires.at(-1) ?? expect.fail('nothing was opened');
  return { bus, wires, wire, seen, states };
}

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

describe('LiveBus', () => {
  it('asks for a topic once, however many want it, until the last one leaves', () => {
    const { bus, wires, wire } = setUp();
    const first = bus.subscribe('nodes');
    const second = bus.subscribe('nodes');
    wire().accept();
    expect(wires).toHaveLength(1);
    expect(wire().sent).toEqual(['{"op":"subscribe","topic":"nodes"}']);
    first();
    first();
    expect(wire().sent).toHaveLength(1);
    second();
    expect(wire().sent.at(-1)).toBe('{"op":"unsubscribe","topic":"nodes"}');
  });

  it('tells of a gap in the sequence, and only of the topic that has it', () => {
    const { bus, wire, seen } = setUp();
    bus.subscribe('nodes');
    bus.subscribe('events');
    wire().accept();
    for (const seq of [7, 8]) wire().say(frame(seq));
    wire().say({ topic: 'events', seq: 1, t: 0, kind: 'changed', objects: ['vms'] });
    expect(seen.gaps).toEqual([]);
    // The node drops metrics for a client that is slow: 9 and 10 never come.
    wire().say(frame(11));
    wire().say({ topic: 'events', seq: 2, t: 0, kind: 'changed', objects: ['vms'] });
    expect(seen.gaps).toEqual([['nodes']]);
    expect(seen.metrics.map((f) => f.seq)).toEqual([7, 8, 11]);
    expect(seen.events).toHaveLength(2);
  });

  it('does not take a topic left and wanted again for a gap', () => {
    const { bus, wire, seen } = setUp();
    const keep = bus.subscribe('disks');
    bus.subscribe('nodes')();
    wire().accept();
    const leave = bus.subscribe('nodes');
    wire().say(frame(1));
    leave();
    wire().say(frame(2));
    bus.subscribe('nodes');
    wire().say(frame(30));
    keep();
    expect(seen.metrics.map((f) => f.seq)).toEqual([1, 30]);
    expect(seen.gaps).toEqual([]);
  });

  it('comes back by itself, asks for everything again and reports what it missed', () => {
    const { bus, wires, wire, seen, states } = setUp();
    bus.subscribe('nodes');
    bus.subscribe('events');
    wire().accept();
    wire().say(frame(5));
    wire().drop();
    expect(states).toEqual(['connecting', 'open', 'down']);
    vi.advanceTimersByTime(500);
    expect(wires).toHaveLength(2);
    wire().accept();
    expect(wire().sent).toHaveLength(2);
    expect(seen.gaps).toEqual([['nodes', 'events']]);
    // The other node counts from where it likes.
    wire().say(frame(1));
    expect(seen.gaps).toHaveLength(1);
  });

  it('waits longer after each failure, but never longer than fifteen seconds', () => {
    const { bus, wires, wire } = setUp();
    vi.spyOn(Math, 'random').mockReturnValue(1);
    bus.subscribe('nodes');
    const waits: number[] = [];
    for (let i = 0; i < 8; i++) {
      wire().drop();
      const before = wires.length;
      let waited = 0;
      while (wires.length === before && waited < 60_000) {
        vi.advanceTimersByTime(250);
        waited += 250;
      }
      waits.push(waited);
    }
    expect(waits).toEqual([500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]);
  });

  it('gives up a link on which metrics have stopped', () => {
    const { bus, wires, wire, states } = setUp();
    const quiet = bus.subscribe('events');
    wire().accept();
    vi.advanceTimersByTime(60_000);
    expect(states.at(-1)).toBe('open');
    bus.subscribe('nodes');
    vi.advanceTimersByTime(11_000);
    wire().say(frame(1));
    vi.advanceTimersByTime(11_000);
    expect(states.at(-1)).toBe('open');
    vi.advanceTimersByTime(1_500);
    expect(wires[0]?.closed).toBe(true);
    expect(wires).toHaveLength(2);
    quiet();
  });

  it('stays away once it was closed', () => {
    const { bus, wires, wire, states } = setUp();
    bus.subscribe('nodes');
    wire().accept();
    const old = wire();
    bus.close();
    old.drop();
    vi.advanceTimersByTime(60_000);
    expect(wires).toHaveLength(1);
    expect(states.at(-1)).toBe('down');
  });
});

describe('what is no frame', () => {
  it.each(['', 'null', '[]', '{"topic":"nodes"}', '{"seq":1}', '{"topic":"nodes","seq":"1"}', '{'])(
    'is ignored: %j',
    (text) => {
      const { bus, wire, seen } = setUp();
      bus.subscribe('nodes');
      wire().accept();
      wire().say(text);
      expect(seen.metrics).toEqual([]);
    },
  );
});
