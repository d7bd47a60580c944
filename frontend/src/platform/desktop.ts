import type { Platform } from '.';

/** What the Go side tells the page at start. */
export interface Boot {
  /** Of the loopback gateway, for example http://127.0.0.1:41234. */
  gateway: string;
  /** 256 random bits, good until this window closes. */
  token: string;
}

interface WailsWindow {
  go?: { desktop?: { Window?: { Boot(): Promise<Boot> } } };
}

/** Asks the window's Go side, where there is one. */
export async function wailsBoot(): Promise<Boot | undefined> {
  return (window as unknown as WailsWindow).go?.desktop?.Window?.Boot();
}

const KEY = 'drystone.gateway';

/**
 * Takes the token that `drystone-desktop --serve` printed as the fragment of its
 * address, which no server ever sees, and removes it from the address bar.
 */
export function serveBoot(): Boot | undefined {
  const match = /^#gateway=([0-9a-f]{64})$/.exec(location.hash);
  if (match?.[1] !== undefined) {
    sessionStorage.setItem(KEY, match[1]);
    history.replaceState(null, '', location.pathname + '#/');
  }
  const token = sessionStorage.getItem(KEY);
  return token === null ? undefined : { gateway: location.origin, token };
}

/**
 * The desktop's window. Sessions with clusters are kept by the Go side (in the
 * system's keyring), so the page only ever holds the gateway's token.
 */
export function desktopPlatform(boot: Boot): Platform {
  return {
    kind: 'desktop',
    deskBase: `${boot.gateway}/desk/v1`,
    apiBase: (cluster) => `${boot.gateway}/c/${encodeURIComponent(cluster)}/api/v1`,
    token: () => boot.token,
    keep: () => undefined,
  };
}
