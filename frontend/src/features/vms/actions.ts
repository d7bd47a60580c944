import type { Connection } from '../../api/connection';
import type { PowerAction, VM, VMChange, VMState } from '../../api/types';

/** What can be done to a machine in a state. */
export function possible(state: VMState): readonly PowerAction[] {
  switch (state) {
    case 'stopped':
    case 'failed':
      return ['start'];
    case 'running':
      return ['shutdown', 'reset', 'stop'];
    case 'starting':
    case 'stopping':
    case 'unknown':
      return ['stop'];
  }
}

/** A guest loses what it did not write; that is asked about first. */
export function abrupt(action: PowerAction): boolean {
  switch (action) {
    case 'stop':
    case 'reset':
      return true;
    case 'start':
    case 'shutdown':
      return false;
  }
}

export function power(c: Connection, vm: Pick<VM, 'id'>, action: PowerAction): Promise<VM> {
  return c.call(`/vms/${vm.id}/${action}`, { method: 'POST', body: {} });
}

export function change(c: Connection, vm: Pick<VM, 'id'>, part: VMChange): Promise<VM> {
  return c.call(`/vms/${vm.id}`, { method: 'PATCH', body: part });
}

export function remove(c: Connection, vm: Pick<VM, 'id'>, keepDisks: boolean): Promise<void> {
  const query = { keep_disks: keepDisks || undefined };
  return c.call(`/vms/${vm.id}`, { method: 'DELETE', query });
}
