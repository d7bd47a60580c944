import { describe, expect, it } from 'vitest';
import recorded from '../../test/fixtures/live-nodes.json';
import { KEEP_SECONDS, Metrics, Track } from './metrics';
import type { History, MetricsFrame } from './types';

// Three frames and the history after them, as a cluster of three nodes sent them.
const frames = recorded.frames as MetricsFrame[];
const history = recorded.history as History;
const [node1 = '', node2 = ''] = history.ids;

function frameOf(i: number): MetricsFrame {
  return frames[i] ?? expect.fail(`there is no frame ${i}`);
}

/** Lets the promises that are under way come to their end. */
const settled = () => new Promise((done) => setTimeout(done, 0));

describe('Metrics', () => {
  it('finds an object’s value in the columns of a frame', () => {
    const m = new Metrics(() => Promise.resolve(history));
    m.push(frameOf(0));
    const at = frameOf(0).ids.indexOf(node2);
    for (const key of ['cpu', 'mem_used', 'w_iops', 'r_lat']) {
      expect(m.value('nodes', node2, key)).toBe(frameOf(0).v[key]?.[at]);
    }
    expect(m.value('nodes', 'nobody', 'cpu')).toBeUndefined();
    expect(m.value('nodes', node2, 'no_such_column')).toBeUndefined();
    expect(m.value('disks', node2, 'cpu')).toBeUndefined();
  });

  it('dates a value by the age that came with it', () => {
    const m = new Metrics(() => Promise.resolve(history));
    m.push({ ...frameOf(0), t: 100_000, ids: [node1, node2], age: [0.2, 40] });
    expect(m.sampledAt('nodes', node1)).toBe(99_800);
    expect(m.sampledAt('nodes', node2)).toBe(60_000);
    expect(m.sampledAt('nodes', 'nobody')).toBeUndefined();
  });

  it('joins history and live frames without a second twice or out of order', async () => {
    const m = new Metrics(() => Promise.resolve(history));
    const { track, release } = m.watch('nodes', node1);
    for (const f of frames) m.push(f);
    await settled();
    const [times, cpu] = track.read(['cpu']);
    const before = history.t.filter((t) => t < frameOf(0).t);
    expect(times.map((s) => Math.round(s * 1000))).toEqual([...before, ...frames.map((f) => f.t)]);
    expect(cpu?.slice(-3)).toEqual(frames.map((f) => f.v.cpu?.[f.ids.indexOf(node1)]));
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    release();
  });

  it('starts empty and fills up when there is no history', async () => {
    const m = new Metrics(() => Promise.reject(new Error('no answer')));
    const { track } = m.watch('nodes', node1);
    await settled();
    expect(track.length).toBe(0);
    m.push(frameOf(0));
    expect(track.length).toBe(1);
  });

  it('tells listeners once a frame, and no longer when they have left', () => {
    const m = new Metrics(() => Promise.resolve(history));
    let told = 0;
    const stop = m.onFrame('nodes', () => told++);
    m.push(frameOf(0));
    m.push({ ...frameOf(1), topic: 'disks' });
    expect(told).toBe(1);
    stop();
    m.push(frameOf(2));
    expect(told).toBe(1);
  });
});

describe('Track', () => {
  const one = (x: number | null) => () => x;

  it('draws a pause as a gap', () => {
    const track = new Track();
    track.push(1000, one(1), ['cpu']);
    track.push(2000, one(2), ['cpu']);
    track.push(30_000, one(3), ['cpu']);
    expect(track.read(['cpu'])).toEqual([
      [1, 2, 2.001, 30],
      [1, 2, null, 3],
    ]);
  });

  it('keeps the newest seconds and no more', () => {
    const track = new Track();
    const total = KEEP_SECONDS * 3 + 7;
    for (let s = 1; s <= total; s++) track.push(s * 1000, one(s), ['cpu']);
    const [times, cpu] = track.read(['cpu']);
    expect(times).toHaveLength(KEEP_SECONDS);
    expect(times.at(0)).toBe(total - KEEP_SECONDS + 1);
    expect(cpu).toEqual(times);
  });

  it('has no value for a series that begins later, and takes no moment twice', () => {
    const track = new Track();
    track.push(1000, one(1), ['cpu']);
    track.push(1000, one(9), ['cpu']);
    track.push(2000, one(2), ['cpu', 'r_iops']);
    expect(track.read(['cpu', 'r_iops', 'unknown'])).toEqual([
      [1, 2],
      [1, 2],
      [null, 2],
      [null, null],
    ]);
  });
});
