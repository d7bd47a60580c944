import { Menu, useMantineColorScheme } from '@mantine/core';
import {
  IconDeviceLaptop,
  IconKeyboard,
  IconLanguage,
  IconLock,
  IconLogout,
  IconMoon,
  IconSun,
  IconUserCircle,
} from '@tabler/icons-react';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../api/context';
import { useSession } from '../api/queries';
import { PasswordDialog } from '../features/settings/PasswordDialog';
import { languages, setLanguage } from '../i18n';
import classes from './Shell.module.css';

interface Props {
  onLogout?: () => void;
  onHelp?: () => void;
}

/** Who is logged in, and the settings of this page. */
export function UserMenu({ onLogout, onHelp }: Props) {
  const { t } = useTranslation();
  const [password, setPassword] = useState(false);
  return (
    <>
      <Menu position="top-start" width={230} withinPortal>
        <Menu.Target>
          <button type="button" className={classes.user} title={t('user.menu')}>
            <IconUserCircle size={22} />
            <span>{onLogout ? <Who /> : t('user.settings')}</span>
          </button>
        </Menu.Target>
        <Menu.Dropdown>
          <Schemes />
          <Menu.Divider />
          <Languages />
          <Menu.Divider />
          {onHelp && (
            <Menu.Item leftSection={<IconKeyboard size={16} />} onClick={onHelp}>
              {t('keys.title')}
            </Menu.Item>
          )}
          {onLogout && (
            <Menu.Item leftSection={<IconLock size={16} />} onClick={() => setPassword(true)}>
              {t('password.title')}
            </Menu.Item>
          )}
          {onLogout && <LogoutItem onDone={onLogout} />}
        </Menu.Dropdown>
      </Menu>
      {password && <PasswordDialog onClose={() => setPassword(false)} />}
    </>
  );
}

function Who() {
  const { t } = useTranslation();
  const session = useSession(true);
  const user = session.data?.user;
  return (
    <>
      {user?.name ?? '…'}
      {user && <small>{t(`role.${user.role}`)}</small>}
    </>
  );
}

function LogoutItem({ onDone }: { onDone: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  const logout = async () => {
    // Also when the cluster cannot be reached, this page forgets the session.
    await connection.call('/logout', { method: 'POST' }).catch(() => undefined);
    connection.setToken(undefined);
    onDone();
  };
  return (
    <Menu.Item leftSection={<IconLogout size={16} />} onClick={() => void logout()}>
      {t('user.logout')}
    </Menu.Item>
  );
}

function Schemes() {
  const { t } = useTranslation();
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  const all = [
    { id: 'light', icon: <IconSun size={16} /> },
    { id: 'dark', icon: <IconMoon size={16} /> },
    { id: 'auto', icon: <IconDeviceLaptop size={16} /> },
  ] as const;
  return all.map(({ id, icon }) => (
    <Menu.Item
      key={id}
      leftSection={icon}
      rightSection={colorScheme === id ? '✓' : null}
      onClick={() => setColorScheme(id)}
    >
      {t(`scheme.${id}`)}
    </Menu.Item>
  ));
}

function Languages() {
  const { i18n } = useTranslation();
  return languages.map(({ id, name }) => (
    <Menu.Item
      key={id}
      leftSection={<IconLanguage size={16} />}
      rightSection={i18n.language === id ? '✓' : null}
      onClick={() => void setLanguage(id)}
    >
      {name}
    </Menu.Item>
  ));
}
