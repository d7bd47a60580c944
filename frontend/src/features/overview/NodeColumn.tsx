import { ActionIcon, Menu, Tooltip } from '@mantine/core';
import {
  IconCircleCheck,
  IconCrown,
  IconDots,
  IconPlugConnectedX,
  IconPlus,
  IconTool,
  IconTrash,
} from '@tabler/icons-react';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useRights } from '../../api/queries';
import type { Disk, Node } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { MetricChart, StaleNote } from '../../parts/charts';
import { Mark } from '../../ui/Mark';
import { AddDisk } from './AddDisk';
import { DiskBay } from './DiskBay';
import { Drained, DrainNode } from './DrainNode';
import { RemoveNode } from './RemoveNode';
import classes from './overview.module.css';

/** One node as a column: what it does now, and its disks as bays. */
export function NodeColumn({ node, disks }: { node: Node; disks: Disk[] }) {
  const { t } = useTranslation();
  const format = useFormat();
  const line = node.up
    ? [
        node.address,
        t('node.cpus', { count: node.cpus }),
        format.bytes(node.memory_bytes),
        t('node.vms', { count: node.vms_running }),
        ...(node.hypervisor ? [] : [t('node.storageOnly')]),
      ]
    : [
        node.address,
        ...(node.since === undefined
          ? []
          : [t('node.downSince', { time: format.moment(node.since) })]),
      ];
  return (
    <section
      className={classes.node}
      data-up={node.up}
      aria-label={node.name}
      data-node={node.name}
    >
      <header className={classes.nodeHead}>
        <h2 title={node.name}>{node.name}</h2>
        {node.leader && (
          <Tooltip label={t('node.leader')} withArrow>
            <IconCrown size={16} className={classes.crown} aria-label={t('node.leader')} />
          </Tooltip>
        )}
        <NodeMark node={node} />
        <NodeMenu node={node} />
      </header>
      <div>
        <p className={classes.nodeLine}>{line.join(' · ')}</p>
        <StaleNote topic="nodes" id={node.id} />
        <Drained node={node} />
      </div>
      <div className={classes.charts}>
        <MetricChart topic="nodes" id={node.id} kind="cpu" height={58} />
        <MetricChart
          topic="nodes"
          id={node.id}
          kind="memory"
          height={44}
          max={node.memory_bytes > 0 ? node.memory_bytes : undefined}
        />
        <MetricChart topic="nodes" id={node.id} kind="iops" height={58} />
        <MetricChart topic="nodes" id={node.id} kind="throughput" height={58} />
      </div>
      <h3 className={classes.baysTitle}>{t('node.disks', { count: disks.length })}</h3>
      <div className={classes.bays}>
        {disks.map((d) => (
          <DiskBay key={d.id} disk={node.up ? d : away(d)} />
        ))}
        {disks.length === 0 && <p className={classes.none}>{t('node.noDisks')}</p>}
      </div>
    </section>
  );
}

/** A disk of a node that is away, whatever was last heard of it. */
function away(disk: Disk): Disk {
  return disk.state === 'online' ? { ...disk, state: 'offline' } : disk;
}

function NodeMark({ node }: { node: Node }) {
  const { t } = useTranslation();
  const format = useFormat();
  const since = node.since === undefined ? undefined : format.dateTime(node.since);
  if (node.maintenance) {
    const state = node.maintenance.vms_left > 0 ? 'draining' : node.up ? 'drained' : 'resting';
    return (
      <Mark tone="info" state={state} icon={<IconTool size={15} />} title={since}>
        {t(`node.${state}`)}
      </Mark>
    );
  }
  if (node.up) {
    return (
      <Mark tone="ok" state="up" icon={<IconCircleCheck size={15} />} title={since}>
        {t('node.up')}
      </Mark>
    );
  }
  return (
    <Mark tone="bad" state="down" icon={<IconPlugConnectedX size={15} />} title={since}>
      {t('node.down')}
    </Mark>
  );
}

function NodeMenu({ node }: { node: Node }) {
  const { t } = useTranslation();
  const rights = useRights();
  const [open, setOpen] = useState<'disk' | 'drain' | 'remove' | undefined>();
  if (!rights.administer) return null;
  const close = () => setOpen(undefined);
  return (
    <>
      <Menu position="bottom-end" withinPortal>
        <Menu.Target>
          <ActionIcon
            variant="subtle"
            color="gray"
            aria-label={t('node.actions', { name: node.name })}
          >
            <IconDots size={18} />
          </ActionIcon>
        </Menu.Target>
        <Menu.Dropdown>
          <Menu.Item leftSection={<IconPlus size={16} />} onClick={() => setOpen('disk')}>
            {t('disk.add.title')}
          </Menu.Item>
          <Menu.Item leftSection={<IconTool size={16} />} onClick={() => setOpen('drain')}>
            {t(node.maintenance ? 'node.undrain.title' : 'node.drain.title')}
          </Menu.Item>
          <Menu.Item
            color="red"
            leftSection={<IconTrash size={16} />}
            onClick={() => setOpen('remove')}
          >
            {t('node.remove.title')}
          </Menu.Item>
        </Menu.Dropdown>
      </Menu>
      {open === 'disk' && <AddDisk node={node} onClose={close} />}
      {open === 'drain' && <DrainNode node={node} onClose={close} />}
      {open === 'remove' && <RemoveNode node={node} onClose={close} />}
    </>
  );
}
