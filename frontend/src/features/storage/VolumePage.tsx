import { Button, Tooltip } from '@mantine/core';
import { IconResize, IconTrash } from '@tabler/icons-react';
import { Link, useNavigate, useParams } from '@tanstack/react-router';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection, useTopics } from '../../api/context';
import { useDisks, useRights, useVMs, useVolume } from '../../api/queries';
import type { Column, Disk, Member, Volume } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { Await } from '../../parts/Await';
import { Repairs } from '../../parts/Repairs';
import { memberLook, VolumeMark } from '../../parts/states';
import { Facts } from '../../ui/Facts';
import { Page } from '../../ui/Page';
import { Panel } from '../../ui/Panel';
import { DeleteVolume, ResizeVolume } from './volumeDialogs';
import classes from './storage.module.css';

/** One volume: what it is, and where each of its columns lies. */
export function VolumePage() {
  const { t } = useTranslation();
  const { cluster, volume: ref } = useParams({ from: '/c/$cluster/storage/$volume' });
  const query = useVolume(ref);
  useTopics('events');
  const v = query.data;
  const tab = v?.kind === 'image' ? 'images' : 'volumes';
  return (
    <Page
      title={v?.name ?? t('storage.volumes')}
      above={
        <Link
          to="/c/$cluster/storage"
          params={{ cluster }}
          search={{ tab }}
          className={classes.back}
        >
          ← {t(`storage.${tab}`)}
        </Link>
      }
      mark={v && <VolumeMark state={v.state} />}
      actions={v && <Actions volume={v} />}
    >
      <Await query={query}>{(volume) => <Body volume={volume} />}</Await>
    </Page>
  );
}

function Actions({ volume }: { volume: Volume }) {
  const { t } = useTranslation();
  const rights = useRights();
  const navigate = useNavigate();
  const { id: cluster } = useConnection();
  const [open, setOpen] = useState<'resize' | 'delete' | undefined>();
  if (!rights.administer) return null;
  const close = () => setOpen(undefined);
  return (
    <>
      <Button
        variant="default"
        leftSection={<IconResize size={16} />}
        onClick={() => setOpen('resize')}
      >
        {t('volume.resize.title')}
      </Button>
      <Button
        variant="default"
        c="var(--d-bad)"
        leftSection={<IconTrash size={16} />}
        onClick={() => setOpen('delete')}
      >
        {t('action.delete')}
      </Button>
      {open === 'resize' && <ResizeVolume volume={volume} onClose={close} />}
      {open === 'delete' && (
        <DeleteVolume
          volume={volume}
          onClose={close}
          onDone={() =>
            void navigate({
              to: '/c/$cluster/storage',
              params: { cluster },
              search: { tab: volume.kind === 'image' ? 'images' : 'volumes' },
            })
          }
        />
      )}
    </>
  );
}

function Body({ volume: v }: { volume: Volume }) {
  const { t } = useTranslation();
  const format = useFormat();
  const { id: cluster } = useConnection();
  const vms = useVMs();
  const disks = useDisks();
  const vm = vms.data?.find((x) => x.id === v.attached_to);
  return (
    <div className={classes.two}>
      <Panel title={t('volume.columns', { count: v.columns_total })}>
        <p className={classes.text}>{t('volume.columnsText')}</p>
        <div className={classes.columns}>
          {(v.columns ?? []).map((c, i) => (
            <ColumnBox key={i} index={i} column={c} disks={disks.data ?? []} />
          ))}
        </div>
        <Repairs volumes={[v]} />
      </Panel>
      <Panel title={t('vm.about')}>
        <Facts
          items={[
            [t('volume.kindTitle'), t(`volume.kind.${v.kind}`)],
            [t('disk.size'), format.bytes(v.size_bytes)],
            [t('volume.used'), format.bytes(v.used_bytes)],
            [t('volume.copies'), format.count(v.copies)],
            [
              t('volume.vm'),
              vm ? (
                <Link
                  key="vm"
                  to="/c/$cluster/vms/$vm"
                  params={{ cluster, vm: vm.id }}
                  className={classes.link}
                >
                  {vm.name}
                </Link>
              ) : (
                '–'
              ),
            ],
            [t('volume.holder'), v.holder_name || '–'],
            [t('volume.generation'), format.count(v.generation)],
            [t('volume.epoch'), format.count(v.epoch)],
            [t('vm.created'), format.dateTime(v.created)],
            [t('vm.id'), <code key="id">{v.id}</code>],
          ]}
        />
      </Panel>
    </div>
  );
}

interface ColumnProps {
  index: number;
  column: Column;
  disks: Disk[];
}

function ColumnBox({ index, column, disks }: ColumnProps) {
  return (
    <div className={classes.column}>
      <span className={classes.columnName}>{index + 1}</span>
      {column.members.map((m) => (
        <MemberBox key={m.disk} member={m} disk={disks.find((d) => d.id === m.disk)} />
      ))}
    </div>
  );
}

function MemberBox({ member, disk }: { member: Member; disk: Disk | undefined }) {
  const { t } = useTranslation();
  const { tone, icon: Icon } = memberLook(member.state);
  const name = disk?.path.split('/').at(-1) ?? member.disk;
  const said = `${disk?.node_name ?? member.node} · ${name} · ${t(`volume.member.${member.state}`)}`;
  return (
    <Tooltip label={said} withArrow openDelay={200}>
      <div className={classes.member} data-tone={tone} data-state={member.state} aria-label={said}>
        <Icon size={14} />
        <span>{disk?.node_name ?? member.node}</span>
      </div>
    </Tooltip>
  );
}
