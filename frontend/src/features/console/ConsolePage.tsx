import { Tabs } from '@mantine/core';
import { Link, useNavigate, useParams, useSearch } from '@tanstack/react-router';
import { useTranslation } from 'react-i18next';
import { useTopics } from '../../api/context';
import { useVM } from '../../api/queries';
import { VMMark } from '../../parts/states';
import { Page } from '../../ui/Page';
import { Screen } from './Screen';
import { Serial } from './Serial';
import classes from './console.module.css';

/** The consoles of a machine: its screen, and its serial port. */
export function ConsolePage() {
  const { t } = useTranslation();
  const { cluster, vm: ref } = useParams({ from: '/c/$cluster/vms/$vm/console' });
  const { kind = 'screen' } = useSearch({ from: '/c/$cluster/vms/$vm/console' });
  const navigate = useNavigate();
  const vm = useVM(ref);
  useTopics('events');
  const name = vm.data?.name ?? ref;
  const props = { vm: vm.data, reference: ref, name };
  return (
    <Page
      title={t('console.title', { name })}
      above={
        <Link to="/c/$cluster/vms/$vm" params={{ cluster, vm: ref }} className={classes.back}>
          ← {name}
        </Link>
      }
      mark={vm.data && <VMMark state={vm.data.status.state} />}
    >
      <Tabs
        value={kind}
        keepMounted={false}
        onChange={(to) =>
          void navigate({
            to: '/c/$cluster/vms/$vm/console',
            params: { cluster, vm: ref },
            search: to === 'serial' ? { kind: 'serial' } : {},
            replace: true,
          })
        }
      >
        <Tabs.List mb="sm">
          <Tabs.Tab value="screen">{t('console.screen')}</Tabs.Tab>
          <Tabs.Tab value="serial">{t('console.serial')}</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="screen">
          <Screen {...props} />
        </Tabs.Panel>
        <Tabs.Panel value="serial">
          <Serial {...props} />
        </Tabs.Panel>
      </Tabs>
    </Page>
  );
}
