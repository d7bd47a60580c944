import type { Connection } from './connection';
import { ApiError } from './errors';
import type { FileRef } from './types';

/** The most a boot file may be; the server refuses more. */
export const MAX_FILE = 256 * 2 ** 20;

/** Lower-case hex of a file's SHA-256. */
export async function sha256(file: Blob): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', await file.arrayBuffer());
  return Array.from(new Uint8Array(digest), (b) => b.toString(16).padStart(2, '0')).join('');
}

/** Keeps a kernel or initrd where every node can fetch it. */
export async function putFile(c: Connection, file: File): Promise<FileRef> {
  if (file.size > MAX_FILE) {
    throw new ApiError('invalid', `"${file.name}" is larger than ${MAX_FILE / 2 ** 20} MiB`);
  }
  const digest = await sha256(file);
  return c.call<FileRef>(`/files/${digest}`, {
    method: 'PUT',
    query: { name: file.name },
    body: file,
  });
}
