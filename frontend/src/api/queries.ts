import { useQuery, keepPreviousData } from '@tanstack/react-query';
import type { UseQueryResult } from '@tanstack/react-query';
import { useConnection, useWorld } from './context';
import { useDeskClusters } from './desk';
import type { DeskCluster } from './desk';
import type { ApiError } from './errors';
import type * as T from './types';

interface List<X> {
  items: X[];
}

interface Options {
  /** Read again this often, for what no event tells about. */
  every?: number;
  enabled?: boolean;
}

function useRead<X>(key: string[], path: string, o: Options = {}): UseQueryResult<X, ApiError> {
  const connection = useConnection();
  return useQuery<X, ApiError>({
    queryKey: ['c', connection.id, ...key],
    queryFn: ({ signal }) => connection.call<X>(path, { signal }),
    placeholderData: keepPreviousData,
    enabled: o.enabled ?? true,
    ...(o.every === undefined ? {} : { refetchInterval: o.every }),
  });
}

function useItems<X>(key: string[], path: string, o: Options = {}): UseQueryResult<X[], ApiError> {
  const connection = useConnection();
  return useQuery<List<X>, ApiError, X[]>({
    queryKey: ['c', connection.id, ...key],
    queryFn: ({ signal }) => connection.call<List<X>>(path, { signal }),
    select: (list) => list.items,
    placeholderData: keepPreviousData,
    enabled: o.enabled ?? true,
    ...(o.every === undefined ? {} : { refetchInterval: o.every }),
  });
}

// The record tells when it changes; what nodes report about themselves does not,
// so a slow refetch keeps usage and progress honest.
const SLOW = 15_000;
const TASKS = 3_000;

export const useMeta = () => useRead<T.Meta>(['meta'], '/meta');
export const useSession = (enabled: boolean) =>
  useRead<T.Session>(['session'], '/session', { enabled, every: 60_000 });
export const useCluster = () => useRead<T.Cluster>(['cluster'], '/cluster', { every: SLOW });
export const useNodes = () => useItems<T.Node>(['nodes'], '/nodes', { every: SLOW });
export const useDisks = () => useItems<T.Disk>(['disks'], '/disks', { every: SLOW });
export const usePool = () => useRead<T.Pool>(['pool'], '/pool', { every: SLOW });
export const useVolumes = () => useItems<T.Volume>(['volumes'], '/volumes', { every: SLOW });
export const useVolume = (id: string) =>
  useRead<T.Volume>(['volumes', id], `/volumes/${encodeURIComponent(id)}`, { every: TASKS });
export const useImages = () => useItems<T.Volume>(['images'], '/images', { every: SLOW });
export const useVMs = () => useItems<T.VM>(['vms'], '/vms', { every: SLOW });
export const useVM = (id: string) =>
  useRead<T.VM>(['vms', id], `/vms/${encodeURIComponent(id)}`, { every: SLOW });
export const useTasks = () => useItems<T.Task>(['tasks'], '/tasks', { every: TASKS });
export const useAudit = (limit: number) =>
  useItems<T.AuditRow>(['audit', String(limit)], `/audit?limit=${limit}`, { every: SLOW });

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
