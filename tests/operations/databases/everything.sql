-- What a database of MariaDB can have, for test_mysql.py. The time zone and the mode of SQL that
-- were set when something was made belong to it.
SET NAMES utf8mb4;
SET time_zone = '+05:30';
SET sql_mode = '';

-- The child comes first, by name and in the dump.
CREATE TABLE child (id INT PRIMARY KEY, parent INT);
CREATE TABLE parent (id INT PRIMARY KEY AUTO_INCREMENT, note TEXT) AUTO_INCREMENT = 77;
INSERT INTO parent VALUES (1, 'one'), (2, NULL);
INSERT INTO child VALUES (1, 1), (2, 2), (3, NULL);
ALTER TABLE child ADD CONSTRAINT fk FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE;

CREATE TABLE kinds (
  id INT PRIMARY KEY,
  bits BIT(9),
  bytes BINARY(4),
  short VARBINARY(10),
  large LONGBLOB,
  utf8 TEXT CHARACTER SET utf8mb4,
  latin VARCHAR(20) CHARACTER SET latin1,
  exact DECIMAL(30, 10),
  inexact DOUBLE,
  choice ENUM('a', 'b''c'),
  choices SET('x', 'y'),
  stamp TIMESTAMP(6) NULL,
  moment DATETIME,
  day DATE,
  since YEAR,
  json JSON,
  uuid UUID,
  ip INET6,
  place GEOMETRY,
  twice INT AS (id * 2) VIRTUAL,
  label VARCHAR(30) AS (CONCAT('n', id)) STORED,
  hidden INT INVISIBLE DEFAULT 5,
  CHECK (id < 1000)
) COMMENT 'it''s \\ a; comment';
INSERT INTO kinds (id, bits, bytes, short, large, utf8, latin, exact, inexact, choice, choices,
                   stamp, moment, day, since, json, uuid, ip, place, hidden) VALUES
  (0, b'101000001', x'00ff0a0d', x'271a5c', x'00ff1f8b0a',
   CONCAT('tea; \'with\' "mìlk" 🫖 \\! `x` -- ', CHAR(0, 10, 13, 9, 26)), 'é',
   -12345678901234567890.0123456789, 1.7976931348623157e308, 'b\'c', 'x,y',
   '2024-02-29 23:59:59.123456', '2024-03-31 02:30:00', '0000-00-00', 1999,
   '{"a": [1, null]}', '123e4567-e89b-12d3-a456-426655440000', '::1',
   ST_GeomFromText('POINT(1 2)'), 9),
  (1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
   NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (2, 0, '', '', '', '', '', 0, -0.1, '', '',
   '1970-01-01 05:30:01', '1000-01-01', '2024-00-00', 0, 'null', NULL, NULL, NULL, DEFAULT);

CREATE TABLE `odd ``name`` é -- ;`
  (`co``l umn` INT, `select` INT, `é` TEXT, KEY `i``x` (`co``l umn`));
INSERT INTO `odd ``name`` é -- ;` VALUES (1, 2, 'x');
CREATE TABLE `-dash` (`-a` INT);
INSERT INTO `-dash` VALUES (5);
CREATE TABLE parts (id INT PRIMARY KEY)
  PARTITION BY RANGE (id)
    (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE);
INSERT INTO parts VALUES (1), (100);
CREATE TABLE history (id INT PRIMARY KEY, amount INT) WITH SYSTEM VERSIONING;
INSERT INTO history VALUES (1, 1);
UPDATE history SET amount = 2;
DELETE FROM history;
INSERT INTO history VALUES (2, 3);
CREATE TABLE old (id INT) ENGINE = MyISAM;
INSERT INTO old VALUES (3);
CREATE TABLE log (n INT, what TEXT);
CREATE SEQUENCE counter START WITH 5 INCREMENT BY 3 NOCACHE;
DO NEXTVAL(counter);

-- The first view, by name, reads the second one.
CREATE VIEW b_view AS SELECT id, note FROM parent;
CREATE SQL SECURITY INVOKER VIEW a_view AS SELECT *, 'é' AS é FROM b_view;
CREATE TRIGGER first BEFORE INSERT ON log FOR EACH ROW SET NEW.what = CONCAT(NEW.what, ' (é)');
DELIMITER //
CREATE TRIGGER second BEFORE INSERT ON log FOR EACH ROW
BEGIN
  SET NEW.n = NEW.n + 1;
END//
CREATE TRIGGER third AFTER INSERT ON child FOR EACH ROW INSERT INTO log VALUES (NEW.id, 'x')//
CREATE DEFINER = app@'%' PROCEDURE proc(IN a INT, OUT b TEXT) COMMENT 'c' SQL SECURITY INVOKER
BEGIN
  -- a comment with ; and `quotes`
  SELECT 'é;' INTO b;
END//
CREATE FUNCTION func(a INT) RETURNS VARCHAR(20) DETERMINISTIC RETURN CONCAT('<', a, '>')//
CREATE EVENT ev ON SCHEDULE EVERY 1 DAY STARTS '2031-01-01 00:00:00' COMMENT 'e' DO
BEGIN
  DELETE FROM log WHERE n = -1;
END//
CREATE EVENT off ON SCHEDULE EVERY 1 HOUR ON COMPLETION PRESERVE DISABLE DO DO 1//
SET sql_mode = ORACLE//
CREATE PACKAGE pack AS
  FUNCTION f RETURN INT;
END//
CREATE PACKAGE BODY pack AS
  FUNCTION f RETURN INT AS
  BEGIN
    RETURN 7;
  END;
END//
DELIMITER ;
