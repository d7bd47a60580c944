import type { DiskFrom, FileRef, Firmware, VMSpec } from '../../api/types';
import { command, size } from '../../parts/command';

const GiB = 2 ** 30;

/** What the wizard knows of a machine that is not made yet. */
export interface Draft {
  name: string;
  cpus: number;
  memory: number;
  disk: { kind: 'new'; bytes: number } | { kind: 'image'; image: string } | { kind: 'none' };
  /** The network of its one card; empty: no card. */
  network: string;
  boot: { kind: 'disk' } | { kind: 'kernel'; kernel?: File; initrd?: File; append: string };
  firmware: Firmware;
  start: boolean;
}

export const emptyDraft: Draft = {
  name: '',
  cpus: 2,
  memory: 2 * GiB,
  disk: { kind: 'new', bytes: 20 * GiB },
  network: '',
  boot: { kind: 'disk' },
  firmware: 'bios',
  start: true,
};

export const bounds = {
  cpus: { min: 1, max: 128 },
  memory: { min: 32 * 2 ** 20, max: 4 * 2 ** 40 },
  disk: { min: 2 ** 20, max: 256 * 2 ** 40 },
} as const;

const LONGEST_NAME = 63;

/** The one grammar of names; the server holds it too. */
export function nameProblem(name: string): 'empty' | 'long' | 'letters' | undefined {
  if (name === '') return 'empty';
  if (name.length > LONGEST_NAME) return 'long';
  return /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) ? undefined : 'letters';
}

/** Whether a step is filled in: size, disk, boot. */
export function complete(d: Draft, step: number): boolean {
  switch (step) {
    case 0:
      return nameProblem(d.name) === undefined && d.cpus >= 1 && d.memory >= bounds.memory.min;
    case 1:
      return d.disk.kind !== 'image' || d.disk.image !== '';
    default:
      if (d.boot.kind === 'kernel') return d.boot.kernel !== undefined;
      return d.disk.kind !== 'none';
  }
}

export function diskOf(d: Draft): DiskFrom[] {
  switch (d.disk.kind) {
    case 'new':
      return [{ size_bytes: d.disk.bytes }];
    case 'image':
      return [{ image: d.disk.image }];
    case 'none':
      return [];
  }
}

/** The request, once the boot files are uploaded. */
export function specOf(d: Draft, kernel?: FileRef, initrd?: FileRef): VMSpec {
  const spec: VMSpec = {
    name: d.name,
    cpus: d.cpus,
    memory_bytes: d.memory,
    disks: diskOf(d),
  };
  if (d.firmware !== 'bios') spec.firmware = d.firmware;
  if (d.network !== '') spec.nics = [{ network: d.network }];
  if (d.boot.kind === 'kernel' && kernel) {
    spec.boot = { kernel };
    if (initrd) spec.boot.initrd = initrd;
    if (d.boot.append !== '') spec.boot.append = d.boot.append;
  }
  return spec;
}

/** The same for the command line tool. */
export function commandOf(d: Draft): string {
  const words = ['vm', 'create', d.name === '' ? 'NAME' : d.name];
  words.push('--cpus', String(d.cpus), '--memory', size(d.memory));
  if (d.disk.kind === 'new') words.push('--disk', size(d.disk.bytes));
  if (d.disk.kind === 'image') words.push('--disk', d.disk.image === '' ? 'IMAGE' : d.disk.image);
  if (d.network !== '') words.push('--nic', `net=${d.network}`);
  if (d.firmware !== 'bios') words.push('--firmware', d.firmware);
  if (d.boot.kind === 'kernel') {
    words.push('--kernel', d.boot.kernel?.name ?? 'FILE');
    if (d.boot.initrd) words.push('--initrd', d.boot.initrd.name);
    if (d.boot.append !== '') words.push('--append', d.boot.append);
  }
  const make = command(...words);
  return d.start ? `${make} && ${command('vm', 'start', d.name || 'NAME')}` : make;
}
