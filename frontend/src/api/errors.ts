/** Every code the API answers with, and two that arise on this side of it. */
export const codes = [
  'invalid',
  'not_found',
  'conflict',
  'denied',
  'unknown',
  'unavailable',
  'fenced',
  'no_space',
  'corrupt',
  'internal',
  'unreachable', // no answer at all
  'untrusted', // the desktop does not trust who answered
] as const;

export type Code = (typeof codes)[number];

/** An error that can be shown: a code, a sentence, and what to quote to support. */
export class ApiError extends Error {
  readonly code: Code;
  readonly status: number;
  readonly requestId: string;

  constructor(code: Code, detail: string, status = 0, requestId = '') {
    super(detail);
    this.name = 'ApiError';
    this.code = code;
    this.status = status;
    this.requestId = requestId;
  }
}

function isCode(x: unknown): x is Code {
  return typeof x === 'string' && (codes as readonly string[]).includes(x);
}

function text(x: unknown): string {
  return typeof x === 'string' ? x : '';
}

/** Makes an ApiError of a problem's body, whatever it turns out to be. */
export function problem(body: unknown, status: number): ApiError {
  const p = (typeof body === 'object' && body !== null ? body : {}) as Record<string, unknown>;
  const code = isCode(p.code) ? p.code : status === 401 ? 'unknown' : 'internal';
  const detail = text(p.detail) || text(p.title) || `HTTP ${status}`;
  return new ApiError(code, detail, status, text(p.request_id));
}

/** Makes an ApiError of anything that was thrown. */
export function asApiError(err: unknown): ApiError {
  if (err instanceof ApiError) return err;
  const detail = err instanceof Error ? err.message : String(err);
  // fetch throws a TypeError when there was no answer.
  return new ApiError(err instanceof TypeError ? 'unreachable' : 'internal', detail);
}
