import { Spotlight } from '@mantine/spotlight';
import type { SpotlightActionData } from '@mantine/spotlight';
import {
  IconActivity,
  IconDatabase,
  IconDeviceDesktop,
  IconLayoutDashboard,
  IconMoon,
  IconNetwork,
  IconPlus,
  IconSearch,
  IconServer2,
} from '@tabler/icons-react';
import { useMantineColorScheme } from '@mantine/core';
import { useNavigate } from '@tanstack/react-router';
import { useTranslation } from 'react-i18next';
import { useVMs, useVolumes } from '../api/queries';

/** Ctrl/Cmd-K: every screen, machine and volume by name. */
export function Palette({ cluster }: { cluster: string }) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const vms = useVMs();
  const volumes = useVolumes();
  const { toggleColorScheme } = useMantineColorScheme();
  const params = { cluster };
  const actions: SpotlightActionData[] = [
    {
      id: 'overview',
      label: t('nav.overview'),
      leftSection: <IconLayoutDashboard size={18} />,
      onClick: () => void navigate({ to: '/c/$cluster', params }),
    },
    {
      id: 'vms',
      label: t('nav.vms'),
      leftSection: <IconDeviceDesktop size={18} />,
      onClick: () => void navigate({ to: '/c/$cluster/vms', params }),
    },
    {
      id: 'create',
      label: t('vm.create.title'),
      leftSection: <IconPlus size={18} />,
      onClick: () => void navigate({ to: '/c/$cluster/vms', params, search: { create: true } }),
    },
    {
      id: 'storage',
      label: t('nav.storage'),
      leftSection: <IconServer2 size={18} />,
      onClick: () => void navigate({ to: '/c/$cluster/storage', params }),
    },
    {
      id: 'networks',
      label: t('nav.networks'),
      leftSection: <IconNetwork size={18} />,
      onClick: () => void navigate({ to: '/c/$cluster/networks', params }),
    },
    {
      id: 'activity',
      label: t('nav.activity'),
      leftSection: <IconActivity size={18} />,
      onClick: () => void navigate({ to: '/c/$cluster/activity', params }),
    },
    {
      id: 'scheme',
      label: t('scheme.toggle'),
      leftSection: <IconMoon size={18} />,
      onClick: toggleColorScheme,
    },
    ...(vms.data ?? []).map((vm) => ({
      id: `vm-${vm.id}`,
      label: vm.name,
      description: t(`vm.state.${vm.status.state}`),
      leftSection: <IconDeviceDesktop size={18} />,
      onClick: () => void navigate({ to: '/c/$cluster/vms/$vm', params: { cluster, vm: vm.id } }),
    })),
    ...(volumes.data ?? []).map((v) => ({
      id: `volume-${v.id}`,
      label: v.name,
      description: t(`volume.kind.${v.kind}`),
      leftSection: <IconDatabase size={18} />,
      onClick: () =>
        void navigate({ to: '/c/$cluster/storage/$volume', params: { cluster, volume: v.id } }),
    })),
  ];
  return (
    <Spotlight
      actions={actions}
      limit={12}
      shortcut="mod + K"
      nothingFound={t('palette.nothing')}
      searchProps={{ leftSection: <IconSearch size={18} />, placeholder: t('palette.search') }}
    />
  );
}
