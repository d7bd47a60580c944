import type { Connection } from '../../api/connection';
import { asApiError } from '../../api/errors';
import type { ApiError } from '../../api/errors';
import type { ConsoleNotice, ConsoleSpec, ConsoleTicket } from '../../api/types';
import { ConsoleChannel } from './channel';

export type Kind = ConsoleSpec['kind'];
type Mode = NonNullable<ConsoleSpec['mode']>;

/** Where a console stands. */
export type LineState =
  | { at: 'opening' }
  | { at: 'open'; notice: ConsoleNotice; taken?: string }
  /** The connection is lost, or the machine does not run: it is tried again. */
  | { at: 'waiting' }
  /** It is not tried again by itself. */
  | { at: 'ended'; reason: string }
  | { at: 'failed'; error: ApiError };

export interface LineOptions {
  /** A new connection is there: what was attached to the one before is over. */
  attach: (channel: ConsoleChannel) => void;
  tell: (state: LineState) => void;
}

/** The codes with which a console is closed for good. */
const ENDED = 1008;
const TAKEN = 4001;

const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 5000;
/** A connection that lasted for so long was a good one. */
const GOOD_MS = 5000;

/** After these errors it may go well a little later. */
const passing: readonly string[] = ['conflict', 'unavailable', 'unreachable', 'fenced'];

/**
 * A console of a machine that is opened anew whenever its connection is lost, as when
 * the machine moves to another node. Who typed before types again; who watched, or was
 * taken over from, watches.
 */
export class Line {
  #connection: Connection;
  #vm: string;
  #kind: Kind;
  #options: LineOptions;
  #mode: Mode = 'use';
  #turn = 0;
  #channel: ConsoleChannel | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;
  #taken: string | undefined;

  constructor(connection: Connection, vm: string, kind: Kind, options: LineOptions) {
    this.#connection = connection;
    this.#vm = vm;
    this.#kind = kind;
    this.#options = options;
  }

  /** Opens the console, or opens it anew. */
  open(mode: Mode = this.#mode): void {
    this.close();
    this.#mode = mode;
    if (mode !== 'watch') this.#taken = undefined;
    this.#options.tell({ at: 'opening' });
    void this.#open(this.#turn);
  }

  /** Tries now, if it waits to try again. */
  wake(): void {
    if (this.#retry !== undefined) this.open();
  }

  close(): void {
    this.#turn++;
    clearTimeout(this.#retry);
    this.#retry = undefined;
    if (this.#channel) {
      this.#channel.onclose?.(new CloseEvent('close', { code: 1000, wasClean: true }));
      this.#channel.onclose = null;
      this.#channel.close();
    }
    this.#channel = undefined;
  }

  async #open(turn: number): Promise<void> {
    let ticket: ConsoleTicket;
    try {
      ticket = await this.#connection.call<ConsoleTicket>(`/vms/${this.#vm}/console`, {
        method: 'POST',
        body: { kind: this.#kind, mode: this.#mode } satisfies ConsoleSpec,
      });
    } catch (err) {
      if (turn === this.#turn) this.#failed(asApiError(err));
      return;
    }
    if (turn !== this.#turn) return;
    const path = `/vms/${this.#vm}/console/${this.#kind}`;
    const socket = this.#connection.openConsole(path, ticket.ticket);
    const channel = new ConsoleChannel(socket, (notice) => {
      if (turn === this.#turn) this.#noticed(notice);
    });
    this.#channel = channel;
    let opened = 0;
    channel.onopen = () => {
      opened = Date.now();
      this.#options.attach(channel);
      const attached = channel.onclose;
      channel.onclose = (e) => {
        attached?.(e);
        if (turn === this.#turn) this.#closed(e, opened);
      };
    };
    channel.onclose = (e) => {
      if (turn === this.#turn) this.#closed(e, opened);
    };
  }

  #noticed(notice: ConsoleNotice): void {
    this.#mode = notice.writes ? 'use' : 'watch';
    const state: LineState = { at: 'open', notice };
    if (this.#taken !== undefined) state.taken = this.#taken;
    this.#options.tell(state);
  }

  #closed(e: CloseEvent, opened: number): void {
    this.#channel = undefined;
    if (opened > 0 && Date.now() - opened > GOOD_MS) this.#failures = 0;
    if (e.code === ENDED) {
      this.#options.tell({ at: 'ended', reason: e.reason });
      return;
    }
    if (e.code === TAKEN) {
      this.#mode = 'watch';
      this.#taken = e.reason;
    }
    this.#again();
  }

  #failed(error: ApiError): void {
    if (passing.includes(error.code)) this.#again();
    else this.#options.tell({ at: 'failed', error });
  }

  #again(): void {
    this.#options.tell({ at: 'waiting' });
    const wait = Math.min(FIRST_WAIT_MS * 2 ** this.#failures, LONGEST_WAIT_MS);
    this.#failures++;
    this.#retry = setTimeout(() => this.open(), wait);
  }
}
