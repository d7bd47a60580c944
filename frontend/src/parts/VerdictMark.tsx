import { IconAlertTriangle, IconCircleCheck, IconTool, IconUrgent } from '@tabler/icons-react';
import { useTranslation } from 'react-i18next';
import type { Cluster } from '../api/types';
import { Mark } from '../ui/Mark';
import { verdict } from './verdict';
import type { Trouble } from './verdict';

/** Whether a cluster is well, in a word. */
export function VerdictMark({ cluster }: { cluster: Cluster }) {
  const { t } = useTranslation();
  const { level } = verdict(cluster);
  switch (level) {
    case 'healthy':
      return (
        <Mark tone="ok" state={level} icon={<IconCircleCheck size={17} />}>
          {t('verdict.healthy')}
        </Mark>
      );
    case 'maintenance':
      return (
        <Mark tone="info" state={level} icon={<IconTool size={17} />}>
          {t('verdict.maintenance')}
        </Mark>
      );
    case 'degraded':
      return (
        <Mark tone="warn" state={level} icon={<IconAlertTriangle size={17} />}>
          {t('verdict.degraded')}
        </Mark>
      );
    case 'critical':
      return (
        <Mark tone="bad" state={level} icon={<IconUrgent size={17} />}>
          {t('verdict.critical')}
        </Mark>
      );
  }
}

/** One trouble as a sentence. */
export function useTrouble(): (x: Trouble) => string {
  const { t } = useTranslation();
  return (x) => {
    switch (x.kind) {
      case 'quorum':
        return t('verdict.quorum');
      case 'unavailable':
        return t('verdict.unavailable', { count: x.count });
      case 'nodes':
        return t('verdict.nodes', { count: x.count });
      case 'sync':
        return t('verdict.sync', { count: x.count });
      case 'alarm': // the leader's sentence, as it is
        return `${x.alarm.text.charAt(0).toUpperCase()}${x.alarm.text.slice(1)}.`;
    }
  };
}
