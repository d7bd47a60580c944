import { Alert, Button } from '@mantine/core';
import { IconAlertTriangle, IconRefresh } from '@tabler/icons-react';
import { useTranslation } from 'react-i18next';
import { asApiError } from '../api/errors';
import classes from './parts.module.css';

interface Props {
  error: unknown;
  /** Tries again, where that can help. */
  retry?: (() => void) | undefined;
}

interface StaleProps extends Props {
  /** From when the data is that stays on screen. */
  since: string;
  retry: () => void;
}

/** One line above data that could not be read again. */
export function Stale({ error, since, retry }: StaleProps) {
  const { t } = useTranslation();
  const e = asApiError(error);
  const title = t(`error.${e.code}.title`);
  return (
    <div className={classes.staleBar} role="alert" title={t(`error.${e.code}.hint`)}>
      <IconAlertTriangle size={16} aria-hidden="true" />
      <b>{since}</b>
      <p>{e.code === 'unreachable' ? title : e.message}</p>
      <button type="button" onClick={retry}>
        {t('action.retry')}
      </button>
    </div>
  );
}

/** An error: what happened, what to do, and what to quote. */
export function Problem({ error, retry }: Props) {
  const { t } = useTranslation();
  const e = asApiError(error);
  return (
    <Alert
      color="red"
      variant="light"
      icon={<IconAlertTriangle size={18} />}
      title={t(`error.${e.code}.title`)}
      role="alert"
    >
      {e.code !== 'unreachable' && <p className={classes.detail}>{e.message}</p>}
      <p className={classes.hint}>{t(`error.${e.code}.hint`)}</p>
      <p className={classes.quote}>
        {t('error.code')} <code>{e.code}</code>
        {e.requestId !== '' && (
          <>
            {' · '}
            {t('error.request')} <code>{e.requestId}</code>
          </>
        )}
      </p>
      {retry && (
        <Button
          size="xs"
          variant="default"
          mt={8}
          onClick={retry}
          leftSection={<IconRefresh size={14} />}
        >
          {t('action.retry')}
        </Button>
      )}
    </Alert>
  );
}
