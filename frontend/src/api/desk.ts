// The desktop app's own API, spoken to its gateway: which clusters it knows.
import { useQuery } from '@tanstack/react-query';
import type { UseQueryResult } from '@tanstack/react-query';
import type { Platform } from '../platform';
import { useWorld } from './context';
import { ApiError } from './errors';
import { call } from './http';
import type { Call } from './http';

/** A cluster as the desktop app remembers it. */
export interface DeskCluster {
  id: string;
  name: string;
  color: string;
  read_only: boolean;
  user: string;
  /** Whether there is a session to use. */
  logged_in: boolean;
  endpoints: string[];
  /** SHA-256 of the CA's public key, as the nodes print it. */
  ca_spki: string;
  added: string;
}

/** Who answered at an address, before anything is trusted. */
export interface Probe {
  cluster_id: string;
  cluster_name: string;
  address: string;
  ca_spki: string;
  /** Whether a join string vouched for the CA, so that nobody has to compare. */
  vouched: boolean;
  known: boolean;
}

export interface DeskAdd {
  address: string;
  ca_spki: string;
  user: string;
  password: string;
  color: string;
}

export function useDeskClusters(enabled = true): UseQueryResult<DeskCluster[], ApiError> {
  const { platform } = useWorld();
  return useQuery<{ items: DeskCluster[] }, ApiError, DeskCluster[]>({
    queryKey: ['desk', 'clusters'],
    queryFn: ({ signal }) => deskCall(platform, '/clusters', { signal }),
    select: (list) => list.items,
    enabled: enabled && platform.deskBase !== undefined,
  });
}

/** A call to the desktop's own API. */
export function deskCall<X>(platform: Platform, path: string, c?: Call): Promise<X> {
  if (platform.deskBase === undefined) {
    throw new ApiError('internal', 'only the desktop app can do this');
  }
  return call<X>({ base: platform.deskBase, token: () => platform.token('') }, path, c);
}
