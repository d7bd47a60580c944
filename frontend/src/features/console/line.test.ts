import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Connection } from '../../api/connection';
import { ApiError } from '../../api/errors';
import type { ConsoleNotice } from '../../api/types';
import { Line } from './line';
import type { LineState } from './line';

/** A websocket whose other end is the test. */
class FakeSocket {
  readyState = 0;
  protocol = '';
  binaryType = 'blob';
  onopen: ((e: Event) => unknown) | null = null;
  onmessage: ((e: MessageEvent) => unknown) | null = null;
  onerror: ((e: Event) => unknown) | null = null;
  onclose: ((e: CloseEvent) => unknown) | null = null;
  send = vi.fn();
  close = vi.fn();

  opens(notice: Partial<ConsoleNotice>): void {
    this.readyState = 1;
    this.onopen?.(new Event('open'));
    const data = JSON.stringify({ writes: true, writer: 'kim', watchers: [], ...notice });
    this.onmessage?.(new MessageEvent('message', { data }));
  }

  closes(code: number, reason = ''): void {
    this.readyState = 3;
    this.onclose?.(new CloseEvent('close', { code, reason }));
  }
}

function world() {
  const sockets: FakeSocket[] = [];
  const modes: unknown[] = [];
  const states: LineState[] = [];
  const refusals: ApiError[] = [];
  const connection = {
    call: (_: string, { body }: { body: { mode: string } }) => {
      modes.push(body.mode);
      const refusal = refusals.shift();
      return refusal ? Promise.reject(refusal) : Promise.resolve({ ticket: 'secret' });
    },
    openConsole: () => {
      const s = new FakeSocket();
      sockets.push(s);
      return s;
    },
  };
  const attach = vi.fn();
  const line = new Line(connection as unknown as Connection, 'web', 'screen', {
    attach,
    tell: (s) => states.push(s),
  });
  const settle = (ms = 0) => vi.advanceTimersByTimeAsync(ms);
  return { sockets, modes, states, refusals, attach, line, settle };
}

describe('a console', () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it('is opened anew by itself when the machine has moved, and types again', async () => {
    const w = world();
    w.line.open();
    await w.settle();
    w.sockets[0]?.opens({});
    expect(w.states.at(-1)).toMatchObject({ at: 'open', notice: { writes: true } });
    w.refusals.push(new ApiError('conflict', 'the machine is not running', 409));
    w.sockets[0]?.closes(1000);
    expect(w.states.at(-1)).toEqual({ at: 'waiting' });
    await w.settle(2000);
    w.sockets[1]?.opens({});
    expect(w.modes).toEqual(['use', 'use', 'use']);
    expect(w.attach).toHaveBeenCalledTimes(2);
    expect(w.states.at(-1)?.at).toBe('open');
  });

  it('only watches after somebody took over, until it takes over again', async () => {
    const w = world();
    w.line.open();
    await w.settle();
    w.sockets[0]?.opens({});
    w.sockets[0]?.closes(4001, 'lee has taken over');
    await w.settle(2000);
    w.sockets[1]?.opens({ writes: false, writer: 'lee' });
    expect(w.states.at(-1)).toMatchObject({ at: 'open', taken: 'lee has taken over' });
    w.line.open('take');
    await w.settle();
    w.sockets[2]?.opens({});
    expect(w.modes).toEqual(['use', 'watch', 'take']);
    expect(w.states.at(-1)).not.toHaveProperty('taken');
  });

  it('is not opened anew when the session has ended', async () => {
    const w = world();
    w.line.open();
    await w.settle();
    w.sockets[0]?.opens({});
    w.sockets[0]?.closes(1008, 'the session has ended');
    await w.settle(60_000);
    expect(w.sockets).toHaveLength(1);
    expect(w.states.at(-1)).toEqual({ at: 'ended', reason: 'the session has ended' });
  });

  it('tells an error that will not pass, and stays quiet once it is closed', async () => {
    const w = world();
    w.refusals.push(new ApiError('denied', 'this needs the role operator', 403));
    w.line.open();
    await w.settle(60_000);
    expect(w.modes).toHaveLength(1);
    expect(w.states.at(-1)?.at).toBe('failed');
    w.line.open();
    await w.settle();
    w.sockets[0]?.opens({});
    w.line.close();
    const told = w.states.length;
    w.sockets[0]?.closes(1006);
    await w.settle(60_000);
    expect(w.states).toHaveLength(told);
    expect(w.sockets).toHaveLength(1);
  });
});
