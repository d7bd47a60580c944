// The part of noVNC that is used here; the library has no types of its own.
declare module '@novnc/novnc' {
  /** What carries the RFB protocol; a WebSocket is one. */
  export interface Channel {
    readonly protocol: string;
    readonly readyState: number;
    binaryType: string;
    onopen: ((e: Event) => unknown) | null;
    onmessage: ((e: MessageEvent<ArrayBuffer>) => unknown) | null;
    onerror: ((e: Event) => unknown) | null;
    onclose: ((e: CloseEvent) => unknown) | null;
    send(data: ArrayBufferView<ArrayBuffer>): void;
    close(): void;
  }

  export default class RFB extends EventTarget {
    constructor(target: HTMLElement, channel: Channel, options?: { shared?: boolean });
    background: string;
    scaleViewport: boolean;
    viewOnly: boolean;
    showDotCursor: boolean;
    focus(options?: FocusOptions): void;
    blur(): void;
    disconnect(): void;
    sendCtrlAltDel(): void;
    sendKey(keysym: number, code: string | null, down?: boolean): void;
  }
}
