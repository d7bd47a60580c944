import { describe, expect, it } from 'vitest';
import type { VM } from '../../api/types';
import { changes } from './EditVM';

const vm = { name: 'web', cpus: 2, memory_bytes: 2 ** 30, priority: 'normal' } as VM;

describe('what is changed of a machine', () => {
  const same = { name: 'web', cpus: 2, memory_bytes: 2 ** 30, priority: 'normal' } as const;

  it('is nothing where all is as it was', () => {
    expect(changes(vm, same)).toEqual({});
  });

  it('is only what differs', () => {
    expect(changes(vm, { ...same, priority: 'high' })).toEqual({ priority: 'high' });
    expect(changes(vm, { ...same, name: 'www', cpus: 4 })).toEqual({ name: 'www', cpus: 4 });
  });
});
