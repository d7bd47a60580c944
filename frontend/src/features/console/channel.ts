import type { Channel } from '@novnc/novnc';
import type { ConsoleNotice } from '../../api/types';

/**
 * A console's websocket without its notices: they are its text messages, the bytes of
 * the machine its binary ones.
 */
export class ConsoleChannel implements Channel {
  onopen: ((e: Event) => unknown) | null = null;
  onmessage: ((e: MessageEvent<ArrayBuffer>) => unknown) | null = null;
  onerror: ((e: Event) => unknown) | null = null;
  onclose: ((e: CloseEvent) => unknown) | null = null;
  #socket: WebSocket;

  constructor(socket: WebSocket, tell: (notice: ConsoleNotice) => void) {
    this.#socket = socket;
    socket.binaryType = 'arraybuffer';
    socket.onopen = (e) => this.onopen?.(e);
    socket.onerror = (e) => this.onerror?.(e);
    socket.onclose = (e) => this.onclose?.(e);
    socket.onmessage = (e: MessageEvent<ArrayBuffer | string>) => {
      if (typeof e.data === 'string') tell(JSON.parse(e.data) as ConsoleNotice);
      else this.onmessage?.(e as MessageEvent<ArrayBuffer>);
    };
  }

  get protocol(): string {
    return this.#socket.protocol;
  }

  get readyState(): number {
    return this.#socket.readyState;
  }

  get binaryType(): string {
    return this.#socket.binaryType;
  }

  set binaryType(_: string) {
    // It is what it has to be.
  }

  send(data: ArrayBufferView<ArrayBuffer>): void {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(data);
  }

  close(): void {
    this.#socket.close();
  }
}
