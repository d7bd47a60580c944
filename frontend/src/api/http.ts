import { ApiError, asApiError, problem } from './errors';

/** Where requests go, and what proves that they may. */
export interface Origin {
  base: string;
  token(): string | undefined;
}

export interface Call {
  method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  body?: unknown;
  query?: Record<string, string | number | boolean | undefined>;
  signal?: AbortSignal;
}

/** Makes the address of a call; undefined values of the query are left out. */
export function address(origin: Origin, path: string, query: Call['query'] = {}): string {
  const q = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value !== undefined) q.set(key, String(value));
  }
  const tail = q.toString();
  return origin.base + path + (tail ? `?${tail}` : '');
}

export function authorization(origin: Origin): Record<string, string> {
  const token = origin.token();
  return token === undefined ? {} : { Authorization: `Bearer ${token}` };
}

/** One request with a JSON answer. Whatever goes wrong is thrown as an ApiError. */
export async function call<T>(origin: Origin, path: string, c: Call = {}): Promise<T> {
  const headers: Record<string, string> = authorization(origin);
  const init: RequestInit = { method: c.method ?? 'GET', headers, credentials: 'omit' };
  if (c.body instanceof Blob) {
    headers['Content-Type'] = 'application/octet-stream';
    init.body = c.body;
  } else if (c.body !== undefined) {
    headers['Content-Type'] = 'application/json';
    init.body = JSON.stringify(c.body);
  }
  if (c.signal) init.signal = c.signal;
  let response: Response;
  try {
    response = await fetch(address(origin, path, c.query), init);
  } catch (err) {
    if (err instanceof DOMException && err.name === 'AbortError') throw err;
    throw asApiError(err);
  }
  const text = await response.text();
  if (!response.ok) throw problem(parse(text), response.status);
  return (text === '' ? undefined : parse(text)) as T;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** What an upload tells while it goes on. */
export interface Progress {
  sent: (bytes: number) => void;
  /** One parsed line of the answer. */
  line: (value: unknown) => void;
}

/**
 * Sends a file and reads newline-delimited JSON back while it comes. Uses
 * XMLHttpRequest, the only one that tells how much of a body has been sent.
 */
export function upload(
  origin: Origin,
  path: string,
  query: Call['query'],
  file: Blob,
  on: Progress,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    let read = 0;
    const lines = (last: boolean) => {
      const text = xhr.responseText;
      const end = last ? text.length : text.lastIndexOf('\n') + 1;
      for (const line of text.slice(read, end).split('\n')) {
        const value = line.trim() === '' ? undefined : parse(line);
        if (value !== undefined) on.line(value);
      }
      read = Math.max(read, end);
    };
    xhr.open('POST', address(origin, path, query));
    for (const [k, v] of Object.entries(authorization(origin))) xhr.setRequestHeader(k, v);
    xhr.setRequestHeader('Content-Type', 'application/octet-stream');
    xhr.upload.onprogress = (e) => on.sent(e.loaded);
    xhr.onprogress = () => {
      if (xhr.status === 200) lines(false);
    };
    xhr.onload = () => {
      if (xhr.status >= 300) {
        reject(problem(parse(xhr.responseText), xhr.status));
        return;
      }
      lines(true);
      resolve();
    };
    xhr.onerror = () => reject(new ApiError('unreachable', 'the connection broke'));
    xhr.onabort = () => reject(new DOMException('cancelled', 'AbortError'));
    signal.addEventListener('abort', () => xhr.abort(), { once: true });
    xhr.send(file);
  });
}
