import { ActionIcon, CopyButton, Tooltip } from '@mantine/core';
import { IconCheck, IconCopy } from '@tabler/icons-react';
import { useTranslation } from 'react-i18next';
import classes from './parts.module.css';

/** The line for the command line tool that does the same. */
export function CopyCommand({ command }: { command: string }) {
  const { t } = useTranslation();
  return (
    <div className={classes.command}>
      <code aria-label={t('action.command')} role="group" tabIndex={0}>
        {command}
      </code>
      <CopyButton value={command} timeout={1500}>
        {({ copied, copy }) => (
          <Tooltip label={copied ? t('action.copied') : t('action.copyCommand')} withArrow>
            <ActionIcon
              variant="subtle"
              color={copied ? 'green' : 'gray'}
              onClick={copy}
              aria-label={t('action.copyCommand')}
            >
              {copied ? <IconCheck size={16} /> : <IconCopy size={16} />}
            </ActionIcon>
          </Tooltip>
        )}
      </CopyButton>
    </div>
  );
}
