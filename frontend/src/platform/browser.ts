import type { Platform } from '.';

const KEY = 'drystone.token';

/**
 * A node's own page. The token lives in the tab's session storage: it survives a
 * reload, is not shared with other tabs, and no request carries it by itself.
 */
export function browserPlatform(): Platform {
  return {
    kind: 'browser',
    deskBase: undefined,
    apiBase: () => '/api/v1',
    token: () => sessionStorage.getItem(KEY) ?? undefined,
    keep: (_, token) => {
      if (token === undefined) sessionStorage.removeItem(KEY);
      else sessionStorage.setItem(KEY, token);
    },
  };
}
