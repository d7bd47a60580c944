import { Button, TextInput } from '@mantine/core';
import { useHotkeys } from '@mantine/hooks';
import { IconDeviceDesktop, IconPlus, IconSearch } from '@tabler/icons-react';
import { useNavigate, useSearch } from '@tanstack/react-router';
import { useMemo, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection, useTopics } from '../../api/context';
import { useRights, useVMs } from '../../api/queries';
import type { VM } from '../../api/types';
import { Await } from '../../parts/Await';
import { Empty } from '../../ui/Empty';
import { Page } from '../../ui/Page';
import { BulkBar } from './BulkBar';
import { CreateVM } from './CreateVM';
import { VMTable } from './VMTable';
import classes from './vms.module.css';

/** Every machine of the cluster, with its numbers of now. */
export function VMList() {
  const { t } = useTranslation();
  const vms = useVMs();
  const rights = useRights();
  const { id: cluster } = useConnection();
  const navigate = useNavigate();
  const search = useSearch({ from: '/c/$cluster/vms' });
  const [filter, setFilter] = useState('');
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const input = useRef<HTMLInputElement>(null);
  useTopics('vms', 'events');
  useHotkeys([['/', () => input.current?.focus()]]);

  const all = vms.data;
  const shown = useMemo(() => (all ?? []).filter((vm) => matches(vm, filter)), [all, filter]);
  const chosen = (all ?? []).filter((vm) => selected.has(vm.id));
  const hidden = chosen.filter((vm) => !shown.includes(vm)).length;
  const show = (create: boolean) =>
    void navigate({
      to: '/c/$cluster/vms',
      params: { cluster },
      search: create ? { create: true } : {},
      replace: true,
    });
  const add = rights.administer && (
    <Button leftSection={<IconPlus size={16} />} onClick={() => show(true)}>
      {t('vm.create.title')}
    </Button>
  );

  return (
    <Page
      title={t('nav.vms')}
      mark={all && <span className={classes.count}>{t('vm.count', { count: all.length })}</span>}
      actions={
        <>
          <TextInput
            ref={input}
            className={classes.search}
            leftSection={<IconSearch size={16} />}
            placeholder={t('vm.search')}
            aria-label={t('vm.search')}
            value={filter}
            onChange={(e) => setFilter(e.currentTarget.value)}
          />
          {add}
        </>
      }
    >
      <Await query={vms}>
        {(list) =>
          list.length === 0 ? (
            <Empty
              icon={<IconDeviceDesktop size={26} />}
              title={t('vm.empty.title')}
              text={t('vm.empty.text')}
              action={add}
            />
          ) : (
            <VMTable vms={shown} filter={filter} selected={selected} onSelect={setSelected} />
          )
        }
      </Await>
      {chosen.length > 0 && (
        <BulkBar vms={chosen} hidden={hidden} onClear={() => setSelected(new Set())} />
      )}
      {search.create && rights.administer && <CreateVM onClose={() => show(false)} />}
    </Page>
  );
}

function matches(vm: VM, filter: string): boolean {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const text = `${vm.name} ${vm.node_name} ${vm.status.state} ${vm.id}`.toLowerCase();
  return words.every((w) => text.includes(w));
}
