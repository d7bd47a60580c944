import type { Connection } from './connection';
import { ApiError, asApiError, codes } from './errors';
import { sha256 } from './files';
import type { ImageFormat, ImportEvent, Upload, UploadSpec, Volume } from './types';

/** What is sent in one request; it is compared and counts whole or not at all. */
const CHUNK = 8 * 2 ** 20;

/** How much of a file's ends goes into its mark. */
const ENDS = 2 ** 20;

/** How long the node may be away before an upload is given up; it can go on later. */
const PATIENCE_MS = 120_000;
const PAUSE_MS = 1000;

export interface Step {
  phase: 'upload' | 'verify' | 'convert';
  done: number;
  total: number;
}

/** By which a file is known again after a reload: its size, its date and its two ends. */
export function markOf(file: File): Promise<string> {
  const head = `${file.size} ${file.lastModified} `;
  return sha256(new Blob([head, file.slice(0, ENDS), file.slice(-ENDS)]));
}

/** The upload of a file that was interrupted before, if the node still has it. */
export async function interrupted(c: Connection, file: File): Promise<Upload | undefined> {
  const [mark, list] = await Promise.all([markOf(file), c.call<{ items: Upload[] }>('/uploads')]);
  return list.items.find((u) => u.mark === mark && u.size_bytes === file.size);
}

/** Begins to send a file. */
export async function begin(
  c: Connection,
  file: File,
  name: string,
  format: ImageFormat | undefined,
): Promise<Upload> {
  const body: UploadSpec = {
    name,
    file: file.name.slice(0, 80),
    mark: await markOf(file),
    size_bytes: file.size,
    copies: 2,
    ...(format === undefined ? {} : { format }),
  };
  return c.call<Upload>('/uploads', { method: 'POST', body });
}

/** Sends what the node does not have of a file, and makes an image of it. */
export async function sendImage(
  c: Connection,
  upload: Upload,
  file: File,
  sum: string,
  on: (step: Step) => void,
  signal: AbortSignal,
): Promise<Volume> {
  let offset = upload.offset_bytes;
  while (offset < file.size) {
    on({ phase: 'upload', done: offset, total: file.size });
    const chunk = file.slice(offset, Math.min(offset + CHUNK, file.size));
    offset = await send(c, upload.id, offset, chunk, signal);
  }
  on({ phase: 'upload', done: offset, total: file.size });
  let last: ImportEvent = {};
  const body = sum === '' ? {} : { sha256: sum.toLowerCase() };
  const path = `/uploads/${upload.id}/finish`;
  await c.lines(path, { method: 'POST', body, signal }, (value) => {
    last = value as ImportEvent;
    if (last.phase === 'verify' || last.phase === 'convert') {
      on({ phase: last.phase, done: last.done_bytes ?? 0, total: last.total_bytes ?? 0 });
    }
  });
  const { error, volume } = last;
  if (error) throw new ApiError(codes.find((x) => x === error.code) ?? 'internal', error.detail);
  if (!volume) throw new ApiError('unreachable', 'the answer ended early');
  return volume;
}

/** Sends a chunk until the node has it, and returns where the next one begins. */
async function send(
  c: Connection,
  id: string,
  offset: number,
  chunk: Blob,
  signal: AbortSignal,
): Promise<number> {
  const end = offset + chunk.size;
  const headers = { 'Upload-Offset': String(offset), 'Upload-Checksum': await checksum(chunk) };
  const until = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      await c.call(`/uploads/${id}`, { method: 'PATCH', body: chunk, headers, signal });
      return end;
    } catch (err) {
      signal.throwIfAborted();
      const { code } = asApiError(err);
      const passes = code === 'unreachable' || code === 'unavailable' || code === 'conflict';
      if (!passes || Date.now() > until) throw err;
      // It may be that only the answer was lost.
      const now = await c.call<Upload>(`/uploads/${id}`, { signal }).catch(() => undefined);
      if (now?.offset_bytes === end) return end;
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    signal.throwIfAborted();
  }
}

async function checksum(chunk: Blob): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', await chunk.arrayBuffer());
  return `sha256 ${btoa(String.fromCharCode(...new Uint8Array(digest)))}`;
}
