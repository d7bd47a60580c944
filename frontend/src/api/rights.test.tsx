import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { renderHook, waitFor } from '@testing-library/react';
import type { ReactNode } from 'react';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Platform } from '../platform';
import { Connections } from './connection';
import { ClusterProvider, WorldProvider } from './context';
import { useRights } from './queries';
import type { User } from './types';

/** A browser or the desktop's window that has a session already. */
function platform(kind: Platform['kind']): Platform {
  return {
    kind,
    deskBase: kind === 'desktop' ? 'http://127.0.0.1/desk' : undefined,
    apiBase: () => 'http://127.0.0.1/api/v1',
    token: () => 'a-session',
    keep: () => undefined,
  };
}

/** Answers every request by its path, as the cluster and the desktop would. */
function answers(byPath: Record<string, unknown>): void {
  vi.spyOn(globalThis, 'fetch').mockImplementation((to) => {
    const { pathname } = new URL(to instanceof Request ? to.url : to);
    const found = Object.entries(byPath).find(([path]) => pathname.endsWith(path));
    return Promise.resolve(
      found ? Response.json(found[1]) : Response.json({ code: 'not_found' }, { status: 404 }),
    );
  });
}

function rightsOf(kind: Platform['kind']) {
  const queries = new QueryClient({ defaultOptions: { queries: { retry: false } } });
  const world = { platform: platform(kind), connections: new Connections(platform(kind), queries) };
  const wrapper = ({ children }: { children: ReactNode }) => (
    <QueryClientProvider client={queries}>
      <WorldProvider {...world}>
        <ClusterProvider id="here">{children}</ClusterProvider>
      </WorldProvider>
    </QueryClientProvider>
  );
  return { queries, ...renderHook(useRights, { wrapper }) };
}

const nothing = { operate: false, administer: false };
const all = { operate: true, administer: true };
const session = (role: User['role']) => ({ user: { id: 'u', name: 'anna', role } });

afterEach(() => {
  vi.restoreAllMocks();
});

describe('useRights', () => {
  it.each([
    ['owner', all],
    ['admin', all],
    ['operator', { operate: true, administer: false }],
    ['viewer', nothing],
  ] as const)('of the role %s', async (role, want) => {
    answers({ '/session': session(role) });
    const { result, queries } = rightsOf('browser');
    // Until the cluster has said who this is, nothing is offered.
    expect(result.current).toEqual(nothing);
    await waitFor(() => expect(queries.isFetching()).toBe(0));
    expect(result.current).toEqual(want);
  });

  it('are none while the session cannot be read', async () => {
    answers({});
    const { result, queries } = rightsOf('browser');
    await waitFor(() => expect(queries.isFetching()).toBe(0));
    expect(result.current).toEqual(nothing);
  });

  it.each([
    ['read-only', true, nothing],
    ['to be changed', false, all],
  ] as const)('of an owner whose desktop has the cluster as %s', async (_, read_only, want) => {
    const cluster = { id: 'here', name: 'oslo', color: '#fff', read_only };
    answers({ '/session': session('owner'), '/clusters': { items: [cluster] } });
    const { result, queries } = rightsOf('desktop');
    await waitFor(() => expect(queries.isFetching()).toBe(0));
    expect(result.current).toEqual(want);
  });
});
