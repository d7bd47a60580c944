import { useQueryClient } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import {
  IconActivity,
  IconDeviceDesktop,
  IconLayoutDashboard,
  IconLayoutGrid,
  IconNetwork,
  IconServer2,
} from '@tabler/icons-react';
import { useEffect, useState } from 'react';
import type { ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import { ClusterProvider, useConnection, useTopics, useWorld } from '../api/context';
import { useDeskClusters } from '../api/desk';
import { useMeta, useSession } from '../api/queries';
import { Login } from '../features/login/Login';
import { Problem } from '../parts/Problem';
import { HelpDialog, useKeys } from './keys';
import { LinkMark } from './LinkMark';
import { Palette } from './Palette';
import classes from './Shell.module.css';
import { UserMenu } from './UserMenu';

/** The frame of the desktop's home screen. */
export function HomeShell({ children }: { children: ReactNode }) {
  return (
    <div className={classes.shell}>
      <aside className={classes.side}>
        <Brand />
        <ClusterLinks />
        <div className={classes.foot}>
          <UserMenu />
        </div>
      </aside>
      <div className={classes.content}>{children}</div>
    </div>
  );
}

/** The frame of everything about one cluster; asks to log in where needed. */
export function ClusterShell({ id, children }: { id: string; children: ReactNode }) {
  return (
    <ClusterProvider id={id}>
      <Gate>{children}</Gate>
    </ClusterProvider>
  );
}

function Gate({ children }: { children: ReactNode }) {
  const connection = useConnection();
  const queries = useQueryClient();
  // The token is no state of React's; a log-in or log-out draws this anew.
  const [, setChanges] = useState(0);
  const token = connection.origin.token();
  const session = useSession(token !== undefined);
  const refused = session.error?.code === 'unknown';

  useEffect(() => {
    if (refused) connection.bus.close();
  }, [refused, connection]);

  if (token === undefined || refused) {
    const onDone = () => {
      void queries.resetQueries({ queryKey: ['c', connection.id, 'session'] });
      void queries.invalidateQueries({ queryKey: ['desk'] });
      setChanges((n) => n + 1);
    };
    return <LoginFrame onDone={onDone} />;
  }
  return (
    <Frame onLogout={() => setChanges((n) => n + 1)}>
      {session.error && !session.data ? (
        <div className={classes.problem}>
          <Problem error={session.error} retry={() => void session.refetch()} />
        </div>
      ) : (
        children
      )}
    </Frame>
  );
}

function LoginFrame({ onDone }: { onDone: () => void }) {
  const { platform } = useWorld();
  if (platform.kind === 'browser') return <Login onDone={onDone} />;
  return (
    <HomeShell>
      <Login onDone={onDone} />
    </HomeShell>
  );
}

function Frame({ children, onLogout }: { children: ReactNode; onLogout: () => void }) {
  const { t } = useTranslation();
  const { platform } = useWorld();
  const connection = useConnection();
  const meta = useMeta();
  const [help, setHelp] = useState(false);
  useTopics('cluster', 'events');
  useKeys(connection.id, () => setHelp(true));
  const cluster = connection.id;
  return (
    <div className={classes.shell}>
      <aside className={classes.side}>
        <Brand name={meta.data?.cluster_name} />
        <nav className={classes.nav} aria-label={t('nav.label')}>
          {platform.kind === 'desktop' && (
            <NavLink to="/" icon={<IconLayoutGrid size={18} />} label={t('nav.clusters')} />
          )}
          <NavLink
            to="/c/$cluster"
            cluster={cluster}
            icon={<IconLayoutDashboard size={18} />}
            label={t('nav.overview')}
          />
          <NavLink
            to="/c/$cluster/vms"
            cluster={cluster}
            icon={<IconDeviceDesktop size={18} />}
            label={t('nav.vms')}
          />
          <NavLink
            to="/c/$cluster/storage"
            cluster={cluster}
            icon={<IconServer2 size={18} />}
            label={t('nav.storage')}
          />
          <NavLink
            to="/c/$cluster/networks"
            cluster={cluster}
            icon={<IconNetwork size={18} />}
            label={t('nav.networks')}
          />
          <NavLink
            to="/c/$cluster/activity"
            cluster={cluster}
            icon={<IconActivity size={18} />}
            label={t('nav.activity')}
          />
        </nav>
        <div className={classes.foot}>
          <LinkMark />
          <UserMenu onLogout={onLogout} onHelp={() => setHelp(true)} />
        </div>
      </aside>
      <div className={classes.content}>{children}</div>
      <Palette cluster={cluster} />
      {help && <HelpDialog onClose={() => setHelp(false)} />}
    </div>
  );
}

function Brand({ name }: { name?: string | undefined }) {
  return (
    <Link to="/" className={classes.brand}>
      <img src="./icon.svg" alt="" width={30} height={30} />
      <span>
        Drystone
        {name !== undefined && <small title={name}>{name}</small>}
      </span>
    </Link>
  );
}

interface NavProps {
  to:
    | '/'
    | '/c/$cluster'
    | '/c/$cluster/vms'
    | '/c/$cluster/storage'
    | '/c/$cluster/networks'
    | '/c/$cluster/activity';
  cluster?: string;
  icon: ReactNode;
  label: string;
}

function NavLink({ to, cluster, icon, label }: NavProps) {
  const exact = to === '/' || to === '/c/$cluster';
  return (
    <Link
      to={to}
      params={cluster === undefined ? {} : { cluster }}
      className={classes.link}
      activeProps={{ 'data-active': true }}
      activeOptions={{ exact }}
    >
      {icon}
      <span>{label}</span>
    </Link>
  );
}

function ClusterLinks() {
  const { t } = useTranslation();
  const clusters = useDeskClusters();
  return (
    <nav className={classes.nav} aria-label={t('nav.clusters')}>
      <NavLink to="/" icon={<IconLayoutGrid size={18} />} label={t('nav.clusters')} />
      {clusters.data?.map((c) => (
        <Link
          key={c.id}
          to="/c/$cluster"
          params={{ cluster: c.id }}
          className={classes.link}
          activeProps={{ 'data-active': true }}
        >
          <i className={classes.tag} style={{ background: c.color }} />
          <span title={c.name}>{c.name}</span>
        </Link>
      ))}
    </nav>
  );
}
