// The only door to what differs between a browser and the desktop's window:
// where the API is, and who keeps the session's token.
import { desktopPlatform, wailsBoot, serveBoot } from './desktop';
import { browserPlatform } from './browser';

/** The cluster that a node's own page is about. */
export const HERE = 'here';

export interface Platform {
  readonly kind: 'browser' | 'desktop';
  /** Where a cluster's API is: a path or an absolute URL, without a slash at the end. */
  apiBase(cluster: string): string;
  /** Where the desktop's own API is; only the desktop has one. */
  readonly deskBase: string | undefined;
  /** The bearer token for requests about a cluster, if there is one. */
  token(cluster: string): string | undefined;
  /** Keeps a session's token, or forgets it. */
  keep(cluster: string, token: string | undefined): void;
}

/** Finds out where the app runs. Called once, before anything is drawn. */
export async function boot(): Promise<Platform> {
  const found = (await wailsBoot()) ?? serveBoot();
  return found ? desktopPlatform(found) : browserPlatform();
}
