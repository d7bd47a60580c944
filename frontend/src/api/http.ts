import { asApiError, problem } from './errors';

/** Where requests go, and what proves that they may. */
export interface Origin {
  base: string;
  token(): string | undefined;
}

export interface Call {
  method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  body?: unknown;
  query?: Record<string, string | number | boolean | undefined>;
  headers?: Record<string, string>;
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
  const text = await (await answered(origin, path, c)).text();
  return (text === '' ? undefined : parse(text)) as T;
}

/** An answer of success, whose body is still to be read. */
async function answered(origin: Origin, path: string, c: Call): Promise<Response> {
  const headers: Record<string, string> = { ...authorization(origin), ...c.headers };
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
  if (!response.ok) throw problem(parse(await response.text()), response.status);
  return response;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * One request whose answer is newline-delimited JSON, each line handed over as it
 * comes. Whatever goes wrong is thrown as an ApiError.
 */
export async function lines(
  origin: Origin,
  path: string,
  c: Call,
  each: (value: unknown) => void,
): Promise<void> {
  const response = await answered(origin, path, c);
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (let done = reader === undefined; !done;) {
    const next = await reader?.read().catch((err: unknown) => {
      throw asApiError(err);
    });
    done = next?.done ?? true;
    rest += next?.value ?? '';
    const whole = rest.split('\n');
    rest = whole.pop() ?? '';
    for (const line of whole) if (line.trim() !== '') each(parse(line));
  }
}
