import { ActionIcon, Button, Table } from '@mantine/core';
import { IconNetwork, IconPencil, IconPlus, IconTrash } from '@tabler/icons-react';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection, useTopics } from '../../api/context';
import { useNetworks, useRights } from '../../api/queries';
import type { Network } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { ActionDialog } from '../../parts/ActionDialog';
import { Await } from '../../parts/Await';
import { command } from '../../parts/command';
import { said } from '../../parts/useRun';
import { Empty } from '../../ui/Empty';
import { Page } from '../../ui/Page';
import { Panel } from '../../ui/Panel';
import { NetworkDialog } from './NetworkDialog';
import classes from './networks.module.css';

type Open = { do: 'create' } | { do: 'edit' | 'delete'; network: Network } | undefined;

/** What network cards of machines are joined to. */
export function Networks() {
  const { t } = useTranslation();
  const networks = useNetworks();
  const rights = useRights();
  const [open, setOpen] = useState<Open>();
  useTopics('cluster', 'events');
  const close = () => setOpen(undefined);
  const add = rights.administer && (
    <Button
      size="xs"
      leftSection={<IconPlus size={15} />}
      onClick={() => setOpen({ do: 'create' })}
    >
      {t('network.create.title')}
    </Button>
  );
  return (
    <Page title={t('nav.networks')} actions={add}>
      <Panel flush>
        <Await query={networks}>
          {(list) =>
            list.length === 0 ? (
              <Empty
                icon={<IconNetwork size={26} />}
                title={t('network.empty.title')}
                text={t('network.empty.text')}
                action={add}
              />
            ) : (
              <List networks={list} act={rights.administer ? setOpen : undefined} />
            )
          }
        </Await>
      </Panel>
      {open?.do === 'create' && <NetworkDialog onClose={close} />}
      {open?.do === 'edit' && <NetworkDialog network={open.network} onClose={close} />}
      {open?.do === 'delete' && <Delete network={open.network} onClose={close} />}
    </Page>
  );
}

function List({ networks, act }: { networks: Network[]; act: ((o: Open) => void) | undefined }) {
  const { t } = useTranslation();
  const format = useFormat();
  return (
    <Table.ScrollContainer minWidth={560}>
      <Table className={classes.table} highlightOnHover>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>{t('network.name')}</Table.Th>
            <Table.Th>{t('network.kindTitle')}</Table.Th>
            <Table.Th>{t('network.bridge')}</Table.Th>
            <Table.Th>{t('network.vlan')}</Table.Th>
            <Table.Th>{t('network.cards')}</Table.Th>
            {act && <Table.Th aria-label={t('network.actions')} />}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {networks.map((n) => (
            <Table.Tr key={n.id}>
              <Table.Td>{n.name}</Table.Td>
              <Table.Td>{t(`network.kind.${n.kind}`)}</Table.Td>
              <Table.Td>
                {[
                  ...(n.bridge ? [n.bridge] : []),
                  ...n.nodes.map((b) => `${b.node_name}: ${b.bridge}`),
                ].join(', ') || '–'}
              </Table.Td>
              <Table.Td>{n.vlan === 0 ? '–' : String(n.vlan)}</Table.Td>
              <Table.Td>{format.count(n.cards)}</Table.Td>
              {act && (
                <Table.Td>
                  <ActionIcon
                    variant="subtle"
                    color="gray"
                    aria-label={t('network.edit.title', { name: n.name })}
                    onClick={() => act({ do: 'edit', network: n })}
                  >
                    <IconPencil size={16} />
                  </ActionIcon>
                  <ActionIcon
                    variant="subtle"
                    color="gray"
                    aria-label={t('network.delete.title', { name: n.name })}
                    disabled={n.cards > 0}
                    onClick={() => act({ do: 'delete', network: n })}
                  >
                    <IconTrash size={16} />
                  </ActionIcon>
                </Table.Td>
              )}
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}

function Delete({ network, onClose }: { network: Network; onClose: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  return (
    <ActionDialog
      title={t('network.delete.title', { name: network.name })}
      onClose={onClose}
      danger
      confirm={t('action.delete')}
      command={command('network', 'delete', network.name)}
      onConfirm={async () => {
        await connection.call(`/networks/${network.id}`, { method: 'DELETE' });
        said(t('network.delete.done', { name: network.name }));
      }}
    >
      <p className={classes.text}>{t('network.delete.text')}</p>
    </ActionDialog>
  );
}
