-- The tables of the Celery peer, as its models in celery_reminders.py have them.
CREATE TABLE person (
    id INT PRIMARY KEY AUTO_INCREMENT,
    name VARCHAR(100) NOT NULL,
    email VARCHAR(100) NOT NULL
) ENGINE=InnoDB;
CREATE TABLE reminder (
    id INT PRIMARY KEY AUTO_INCREMENT,
    person_id INT NOT NULL,
    title VARCHAR(200) NOT NULL,
    status VARCHAR(16) NOT NULL,
    fire_at DATETIME(6) NOT NULL,
    sent_at DATETIME(6),
    INDEX (status, fire_at)
) ENGINE=InnoDB;
