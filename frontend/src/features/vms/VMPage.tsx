import { Button } from '@mantine/core';
import { IconAlertTriangle, IconPlayerPlay, IconPower, IconTerminal2 } from '@tabler/icons-react';
import { Link, useNavigate, useParams } from '@tanstack/react-router';
import { useTranslation } from 'react-i18next';
import { useConnection, useTopics } from '../../api/context';
import { useAudit, useRights, useVM } from '../../api/queries';
import type { VM } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { AuditLine } from '../../parts/AuditLine';
import { Await } from '../../parts/Await';
import { StaleNote } from '../../parts/charts';
import { VMMark } from '../../parts/states';
import { useRun } from '../../parts/useRun';
import { Facts } from '../../ui/Facts';
import { Page } from '../../ui/Page';
import { Panel } from '../../ui/Panel';
import { possible, power } from './actions';
import { Cards } from './Cards';
import { Disks } from './Disks';
import { Charts } from './Charts';
import { Drives } from './Drives';
import { limitsOf } from './limits';
import { VMMenu } from './VMMenu';
import classes from './vms.module.css';

/** One machine: what it does now, what it is made of, what was done to it. */
export function VMPage() {
  const { t } = useTranslation();
  const { cluster, vm: ref } = useParams({ from: '/c/$cluster/vms/$vm' });
  const query = useVM(ref);
  useTopics('vms', 'events');
  const vm = query.data;
  return (
    <Page
      title={vm?.name ?? t('nav.vms')}
      above={
        <Link to="/c/$cluster/vms" params={{ cluster }} className={classes.back}>
          ← {t('nav.vms')}
        </Link>
      }
      mark={vm && <VMMark state={vm.status.state} reason={vm.status.reason} />}
      actions={vm && <Actions vm={vm} />}
    >
      <Await query={query}>{(v) => <Body vm={v} />}</Await>
    </Page>
  );
}

function Actions({ vm }: { vm: VM }) {
  const { t } = useTranslation();
  const connection = useConnection();
  const rights = useRights();
  const navigate = useNavigate();
  const { busy, run } = useRun();
  const params = { cluster: connection.id, vm: vm.id };
  if (!rights.operate) return null;
  const can = possible(vm.status.state);
  const shown = can.includes('start') ? 'start' : can.includes('shutdown') ? 'shutdown' : undefined;
  return (
    <>
      <Button
        variant="default"
        leftSection={<IconTerminal2 size={16} />}
        disabled={vm.status.state !== 'running'}
        onClick={() => void navigate({ to: '/c/$cluster/vms/$vm/console', params })}
      >
        {t('vm.console')}
      </Button>
      {shown && (
        <Button
          variant={shown === 'start' ? 'filled' : 'default'}
          loading={busy}
          leftSection={shown === 'start' ? <IconPlayerPlay size={16} /> : <IconPower size={16} />}
          onClick={() =>
            run(() => power(connection, vm, shown), t(`vm.done.${shown}`, { name: vm.name }))
          }
        >
          {t(`vm.action.${shown}`)}
        </Button>
      )}
      <VMMenu
        vm={vm}
        without={shown ? [shown] : []}
        onDeleted={() => void navigate({ to: '/c/$cluster/vms', params })}
      />
    </>
  );
}

function Body({ vm }: { vm: VM }) {
  const { t } = useTranslation();
  const reason = vm.status.reason;
  return (
    <>
      {reason !== '' && (
        <p className={classes.reason} data-bad={vm.status.state === 'failed' || undefined}>
          <IconAlertTriangle size={16} aria-hidden="true" />
          {reason}
        </p>
      )}
      {vm.status.state === 'running' && <StaleNote topic="vms" id={vm.id} />}
      <div className={classes.body}>
        <Charts vm={vm} />
        <div className={classes.facts}>
          <About vm={vm} />
          <Disks vm={vm} />
          <Drives vm={vm} />
          <Cards vm={vm} />
          <Panel title={t('vm.events')}>
            <Events vm={vm} />
          </Panel>
        </div>
      </div>
    </>
  );
}

function About({ vm }: { vm: VM }) {
  const { t } = useTranslation();
  const format = useFormat();
  const { since } = vm.status;
  return (
    <Panel title={t('vm.about')}>
      <Facts
        items={[
          [t('vm.stateTitle'), <VMMark key="s" state={vm.status.state} />],
          [t('vm.since'), since === undefined ? '–' : format.dateTime(since)],
          [t('vm.node'), vm.node_name || '–'],
          [t('vm.cpus'), format.count(vm.cpus)],
          [t('metric.memory'), format.bytes(vm.memory_bytes)],
          [t('vm.priority.title'), t(`vm.priority.${vm.priority}`)],
          ...wishes(vm, t('vm.wish.strict')).map((w) => [t('vm.wish.title'), w] as const),
          ...(vm.apart.length > 0 ? [[t('vm.wish.apart'), vm.apart.join(', ')] as const] : []),
          ...(vm.returns_to ? [[t('vm.wish.returns'), vm.returns_to] as const] : []),
          ...limitsOf(vm.limits, format, t).map((l) => [t('vm.limit.title'), l] as const),
          [t('vm.firmware.title'), t(`vm.firmware.${vm.firmware}`)],
          [t('vm.boot'), vm.boot ? vm.boot.kernel.name : vm.boot_order.join(', ')],
          ...(vm.boot?.append
            ? [[t('vm.append'), <code key="a">{vm.boot.append}</code>] as const]
            : []),
          ...(vm.tags.length > 0 ? [[t('vm.tags'), vm.tags.join(', ')] as const] : []),
          ...(vm.description === '' ? [] : [[t('vm.description'), vm.description] as const]),
          [t('vm.created'), format.dateTime(vm.created)],
          [t('vm.id'), <code key="i">{vm.id}</code>],
        ]}
      />
    </Panel>
  );
}

/** Where a machine rather runs, as one line, or none. */
function wishes(vm: VM, strict: string): string[] {
  const nodes = [vm.prefer, vm.backup].filter((n) => n);
  if (nodes.length === 0) return [];
  return [[...nodes, ...(vm.strict ? [strict] : [])].join(', ')];
}

const LOOK_BACK = 100;
const SHOWN = 6;

function Events({ vm }: { vm: VM }) {
  const { t } = useTranslation();
  const audit = useAudit(LOOK_BACK);
  return (
    <Await query={audit}>
      {(rows) => {
        const mine = rows.filter((r) => r.object.split(' ').includes(vm.id)).slice(0, SHOWN);
        if (mine.length === 0) return <p className={classes.text}>{t('vm.noEvents')}</p>;
        return mine.map((r) => <AuditLine key={r.index} row={r} />);
      }}
    </Await>
  );
}
