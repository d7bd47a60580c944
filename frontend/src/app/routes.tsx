import {
  createHashHistory,
  createRootRoute,
  createRoute,
  createRouter,
  lazyRouteComponent,
  Navigate,
  Outlet,
} from '@tanstack/react-router';
import { useWorld } from '../api/context';
import { HERE } from '../platform';
import { Clusters } from '../features/clusters/Clusters';
import { ErrorBoundary } from './ErrorBoundary';
import { ClusterShell, HomeShell } from './Shell';

const root = createRootRoute({
  component: () => (
    <ErrorBoundary>
      <Outlet />
    </ErrorBoundary>
  ),
  notFoundComponent: () => <Navigate to="/" replace />,
});

const home = createRoute({
  getParentRoute: () => root,
  path: '/',
  component: function Home() {
    const { platform } = useWorld();
    // A node's own page is about one cluster.
    if (platform.kind === 'browser') {
      return <Navigate to="/c/$cluster" params={{ cluster: HERE }} replace />;
    }
    return (
      <HomeShell>
        <Clusters />
      </HomeShell>
    );
  },
});

const cluster = createRoute({
  getParentRoute: () => root,
  path: '/c/$cluster',
  component: function ClusterRoute() {
    const { cluster: id } = cluster.useParams();
    return (
      <ClusterShell key={id} id={id}>
        <ErrorBoundary>
          <Outlet />
        </ErrorBoundary>
      </ClusterShell>
    );
  },
});

const overview = createRoute({
  getParentRoute: () => cluster,
  path: '/',
  component: lazyRouteComponent(() => import('../features/overview/Overview'), 'Overview'),
});

const vms = createRoute({
  getParentRoute: () => cluster,
  path: '/vms',
  validateSearch: (s: Record<string, unknown>): { create?: true } =>
    s.create === true ? { create: true } : {},
  component: lazyRouteComponent(() => import('../features/vms/VMList'), 'VMList'),
});

const vm = createRoute({
  getParentRoute: () => cluster,
  path: '/vms/$vm',
  component: lazyRouteComponent(() => import('../features/vms/VMPage'), 'VMPage'),
});

const consoles = createRoute({
  getParentRoute: () => cluster,
  path: '/vms/$vm/console',
  validateSearch: (s: Record<string, unknown>): { kind?: 'serial' } =>
    s.kind === 'serial' ? { kind: 'serial' } : {},
  component: lazyRouteComponent(() => import('../features/console/ConsolePage'), 'ConsolePage'),
});

const storage = createRoute({
  getParentRoute: () => cluster,
  path: '/storage',
  validateSearch: (s: Record<string, unknown>): { tab?: 'volumes' | 'images' } =>
    s.tab === 'volumes' || s.tab === 'images' ? { tab: s.tab } : {},
  component: lazyRouteComponent(() => import('../features/storage/Storage'), 'Storage'),
});

const volume = createRoute({
  getParentRoute: () => cluster,
  path: '/storage/$volume',
  component: lazyRouteComponent(() => import('../features/storage/VolumePage'), 'VolumePage'),
});

const networks = createRoute({
  getParentRoute: () => cluster,
  path: '/networks',
  component: lazyRouteComponent(() => import('../features/networks/Networks'), 'Networks'),
});

const activity = createRoute({
  getParentRoute: () => cluster,
  path: '/activity',
  component: lazyRouteComponent(() => import('../features/activity/Activity'), 'Activity'),
});

export const router = createRouter({
  routeTree: root.addChildren([
    home,
    cluster.addChildren([overview, vms, vm, consoles, storage, volume, networks, activity]),
  ]),
  history: createHashHistory(),
  defaultPreload: 'intent',
});

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router;
  }
}
