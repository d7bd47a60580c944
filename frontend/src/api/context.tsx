import { createContext, useContext, useEffect, useMemo, useSyncExternalStore } from 'react';
import type { ReactNode } from 'react';
import type { Platform } from '../platform';
import type { Connection, Connections } from './connection';
import type { LinkState } from './live';
import type { Topic } from './types';

interface World {
  platform: Platform;
  connections: Connections;
}

const WorldContext = createContext<World | undefined>(undefined);
const ClusterContext = createContext<Connection | undefined>(undefined);

export function WorldProvider({ children, ...world }: World & { children: ReactNode }) {
  return <WorldContext.Provider value={world}>{children}</WorldContext.Provider>;
}

/** Where the app runs, and the connections it has. */
export function useWorld(): World {
  const world = useContext(WorldContext);
  if (!world) throw new Error('no WorldProvider above');
  return world;
}

/** Everything below is about one cluster. */
export function ClusterProvider({ id, children }: { id: string; children: ReactNode }) {
  const { connections } = useWorld();
  const connection = useMemo(() => connections.get(id), [connections, id]);
  return <ClusterContext.Provider value={connection}>{children}</ClusterContext.Provider>;
}

/** The cluster that this part of the page is about. */
export function useConnection(): Connection {
  const connection = useContext(ClusterContext);
  if (!connection) throw new Error('no ClusterProvider above');
  return connection;
}

/** Wants topics of the live stream for as long as the caller is on screen. */
export function useTopics(...topics: Topic[]): void {
  const { bus } = useConnection();
  const wanted = topics.join(' ');
  useEffect(() => {
    const release = wanted.split(' ').map((t) => bus.subscribe(t as Topic));
    return () => {
      for (const r of release) r();
    };
  }, [bus, wanted]);
}

/** How the live stream is. */
export function useLink(): LinkState {
  const connection = useConnection();
  return useSyncExternalStore(
    (tell) => connection.onLink(tell),
    () => connection.link,
  );
}
