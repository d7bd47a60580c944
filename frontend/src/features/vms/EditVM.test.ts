import { describe, expect, it } from 'vitest';
import type { VM } from '../../api/types';
import { changes } from './EditVM';

const vm = {
  name: 'web',
  cpus: 2,
  memory_bytes: 2 ** 30,
  priority: 'normal',
  firmware: 'uefi',
  prefer: 'granite',
  strict: true,
  apart: ['db'],
  tags: ['shop'],
  description: '',
  limits: { iops: 500, bytes_per_second: 0, burst_seconds: 10 },
} as unknown as VM;

describe('what is changed of a machine', () => {
  const same = {
    name: 'web',
    cpus: 2,
    memory_bytes: 2 ** 30,
    priority: 'normal' as const,
    firmware: 'uefi' as const,
    prefer: 'granite',
    backup: '',
    strict: true,
    apart: ['db'],
    tags: ['shop'],
    description: '',
    limit_iops: 500,
    limit_bytes_per_second: 0,
    limit_burst_seconds: 10,
  };

  it('is nothing where all is as it was', () => {
    expect(changes(vm, { ...same, apart: [...same.apart] })).toEqual({});
  });

  it('is only what differs', () => {
    expect(changes(vm, { ...same, apart: ['db'], priority: 'high' })).toEqual({ priority: 'high' });
    expect(changes(vm, { ...same, firmware: 'bios' })).toEqual({ firmware: 'bios' });
    expect(changes(vm, { ...same, prefer: '', strict: false, apart: ['db', 'web'] })).toEqual({
      prefer: '',
      strict: false,
      apart: ['db', 'web'],
    });
    expect(changes(vm, { ...same, tags: [], description: 'The shop.' })).toEqual({
      tags: [],
      description: 'The shop.',
    });
    expect(changes(vm, { ...same, apart: ['db'], name: 'www', cpus: 4 })).toEqual({
      name: 'www',
      cpus: 4,
    });
    expect(changes(vm, { ...same, apart: ['db'], limit_iops: 0 })).toEqual({ limit_iops: 0 });
  });
});
