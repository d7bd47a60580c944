import { useQuery } from '@tanstack/react-query';
import type { UseQueryResult } from '@tanstack/react-query';
import { useConnection, useWorld } from './context';
import { useDeskClusters } from './desk';
import type { DeskCluster } from './desk';
import type { ApiError } from './errors';
import type { paths } from './schema';
import type { Answer, Item } from './types';

interface Options {
  /** Put in place of {ref} in the path. */
  ref?: string;
  query?: Record<string, string | number | boolean>;
  /** Read again this often, for what no event tells about. */
  every?: number;
  enabled?: boolean;
}

/** The first word of a path is its noun: what events speak of. */
function keyOf(cluster: string, path: string, o: Options): (string | object)[] {
  const noun = path.split('/')[1] ?? path;
  const more = o.ref === undefined ? [] : [o.ref];
  return ['c', cluster, noun, ...more, ...(o.query ? [o.query] : [])];
}

function useRead<P extends keyof paths>(
  path: P,
  o: Options = {},
): UseQueryResult<Answer<P>, ApiError> {
  const connection = useConnection();
  return useQuery<Answer<P>, ApiError, Answer<P>>({
    queryKey: keyOf(connection.id, path, o),
    queryFn: ({ signal }) => {
      const at = o.ref === undefined ? path : path.replace('{ref}', encodeURIComponent(o.ref));
      return connection.call<Answer<P>>(at, { signal, ...(o.query ? { query: o.query } : {}) });
    },
    enabled: o.enabled ?? true,
    ...(o.every === undefined ? {} : { refetchInterval: o.every }),
  });
}

function useItems<P extends keyof paths>(
  path: P,
  o: Options = {},
): UseQueryResult<Item<P>[], ApiError> {
  const connection = useConnection();
  return useQuery<{ items: Item<P>[] }, ApiError, Item<P>[]>({
    queryKey: keyOf(connection.id, path, o),
    queryFn: ({ signal }) =>
      connection.call(path, { signal, ...(o.query ? { query: o.query } : {}) }),
    select: (list) => list.items,
    enabled: o.enabled ?? true,
    ...(o.every === undefined ? {} : { refetchInterval: o.every }),
  });
}

// The record tells when it changes; what nodes report about themselves does not,
// so a slow refetch keeps usage and progress honest.
const SLOW = 15_000;
const FAST = 3_000;

export const useMeta = () => useRead('/meta');
export const useSession = (enabled: boolean) => useRead('/session', { enabled, every: 60_000 });
export const useCluster = () => useRead('/cluster', { every: SLOW });
export const useNodes = () => useItems('/nodes', { every: SLOW });
export const useDisks = () => useItems('/disks', { every: SLOW });
export const usePool = () => useRead('/pool', { every: SLOW });
export const useVolumes = () => useItems('/volumes', { every: SLOW });
export const useVolume = (ref: string) => useRead('/volumes/{ref}', { ref, every: FAST });
export const useImages = () => useItems('/images', { every: SLOW });
export const useUploads = (enabled: boolean) => useItems('/uploads', { every: FAST, enabled });
export const useVMs = () => useItems('/vms', { every: SLOW });
export const useVM = (ref: string) => useRead('/vms/{ref}', { ref, every: SLOW });
export const useNetworks = () => useItems('/networks', { every: SLOW });
export const useVMHistory = (ref: string, seconds: number) =>
  useRead('/vms/{ref}/history', { ref, query: { seconds }, every: SLOW });
export const useTasks = () => useItems('/tasks', { every: FAST });
export const useAudit = (limit: number) =>
  useItems('/audit', { query: { limit, newest: true }, every: SLOW });

export interface Rights {
  /** May start, stop and use machines. */
  operate: boolean;
  /** May make and delete machines, volumes and disks. */
  administer: boolean;
}

/** What the user may do; the server checks it again. */
export function useRights(): Rights {
  const { platform } = useWorld();
  const connection = useConnection();
  const session = useSession(connection.origin.token() !== undefined);
  const desk = useDeskCluster(connection.id, platform.kind === 'desktop');
  if (desk?.read_only) return { operate: false, administer: false };
  switch (session.data?.user.role) {
    case 'owner':
    case 'admin':
      return { operate: true, administer: true };
    case 'operator':
      return { operate: true, administer: false };
    case 'viewer':
    case undefined:
      return { operate: false, administer: false };
  }
}

function useDeskCluster(id: string, enabled: boolean): DeskCluster | undefined {
  return useDeskClusters(enabled).data?.find((c) => c.id === id);
}
