"""The words of the reports in English and in Korean: names of assets, labels of figures, texts."""

import re

from gaip3_pipeline.attributes import ATTRIBUTES

Words = tuple[str, str]  # English, Korean

_ATTRIBUTES: dict[str, Words] = {
    "eyes": ("eyes", "눈"),
    "mouth": ("mouth", "입"),
    "hair_color": ("hair colour", "머리 색"),
    "background": ("background", "배경"),
    "head": ("head", "고개"),
}
ATTRIBUTE_NAMES = tuple(english for english, _ in _ATTRIBUTES.values())  # in charts
_SETS: dict[str, Words] = {
    "d1": ("D1", "D1"),
    "d2_female": ("D2, women", "D2 여성"),
    "d2_male": ("D2, men", "D2 남성"),
}
_OF_ATTRIBUTE: dict[str, Words] = {
    "labels_": ("Labels: {}", "레이블: {}"),
    "input_model_": ("Model that predicts {}", "{} 값을 예측하는 모델"),
    "input_values_": ("Predicted values: {}", "예측값: {}"),
    "evaluator_": ("Model that measures {}", "{} 값을 측정하는 모델"),
}
_OF_SET: dict[str, Words] = {
    "resized_": ("Cropped photographs: {}", "자른 사진: {}"),
    "augmented_": ("Brightness copies: {}", "밝기 사본: {}"),
}
_ASSETS: dict[str, Words] = {
    "near_duplicates": ("Photographs that occur twice", "중복된 사진"),
    "image_quality": ("Defects of photographs", "사진의 결함"),
    "gender_model": ("Gender model", "성별 모델"),
    "gender_probabilities": ("Probabilities of the gender model", "성별 모델의 확률"),
    "final_dataset": ("Images that train the generator", "생성기를 학습하는 이미지"),
    "curation_report": ("Curation report", "큐레이션 보고서"),
    "label_review": ("Labels that look wrong", "잘못되어 보이는 레이블"),
    "feature_extractor": ("Features of a picture", "사진의 특징"),
    "final_features": ("Features of the training images", "학습 이미지의 특징"),
    "inputs_report": ("Report on the five values", "다섯 값 보고서"),
    "control_regressor": ("Network that teaches the sliders", "슬라이더를 가르치는 신경망"),
    "nvae_weights": ("Generator", "생성기"),
    "aggregate_posterior": ("Distribution of latents", "잠재값의 분포"),
    "detail_weights": ("Detail network", "디테일 신경망"),
    "nvae_samples": ("Samples", "표본"),
    "generator_evaluation": ("Evaluation of the generator", "생성기 평가"),
    "prior_critic_weights": ("Critic of latents", "잠재값 비평가"),
    "critic_weights": ("Critic that guides retouching", "보정을 이끄는 비평가"),
    "judge_weights": ("Judge", "판정 모델"),
    "reconstruction_judge_weights": ("Judge of reconstructions", "재구성 판정 모델"),
    "retouched_samples": ("Retouched samples", "보정한 표본"),
}

_AUC: Words = ("AUC: photographs against faces", "AUC: 사진 대 생성된 얼굴")
_FIGURES: dict[str, Words] = {
    # counts
    "n": ("number measured (n)", "측정한 수 (n)"),
    "n_train": ("training images", "학습 이미지"),
    "n_held_out": ("held-out images", "학습에 쓰지 않은 이미지"),
    "images": ("images", "이미지"),
    "rows": ("rows", "행"),
    "bytes": ("size in bytes", "크기(바이트)"),
    "files": ("images", "이미지"),
    "originals": ("photographs", "사진"),
    # photographs
    "unusable": ("not usable", "쓸 수 없음"),
    "dropped": ("dropped by you", "직접 제외함"),
    "dropped_unknown": ("dropped, but not there", "제외했지만 파일이 없음"),
    "left_out": ("left out", "빠진 것"),
    "left_out_files": ("files left out", "빠진 파일"),
    "left_out_rows": ("rows left out", "빠진 행"),
    "noted": ("remarks on files", "파일에 대한 메모"),
    "foreign": ("files not made here", "여기서 만들지 않은 파일"),
    "done": ("processed now", "이번에 처리함"),
    "reused": ("taken over", "그대로 씀"),
    "removed": ("removed", "삭제함"),
    "groups": ("groups of one photograph", "같은 사진의 묶음"),
    "images_in_groups": ("photographs in groups", "묶음에 든 사진"),
    "groups_across_sets": ("groups in more than one set", "여러 세트에 걸친 묶음"),
    "mirrored": ("mirrored", "좌우가 뒤집힘"),
    "moved": ("moved to another bucket", "다른 버킷으로 옮겨짐"),
    "moved_originals": ("moved photographs", "옮겨진 사진"),
    "with_issues": ("with a defect", "결함이 있음"),
    "blurry": ("blurred", "흐림"),
    "dark": ("dark", "어두움"),
    "light": ("glaring", "눈부심"),
    "flat": ("flat", "밋밋함"),
    "grey": ("grey", "회색"),
    "small": ("small", "작음"),
    "odd_proportions": ("odd proportions", "비율이 이상함"),
    # gender and final dataset
    "accuracy": ("accuracy", "정확도"),
    "female_recall": ("women found", "찾은 여성의 비율"),
    "female_recall_interval": ("women found, 95 % interval", "찾은 여성의 비율, 95 % 구간"),
    "male_recall": ("men found", "찾은 남성의 비율"),
    "roc_auc": ("ROC AUC", "ROC AUC"),
    "temperature": ("temperature", "온도"),
    "ece": ("calibration error", "확률 보정 오차"),
    "ece_plain": ("calibration error, plain score", "확률 보정 오차, 원래 점수"),
    "female_above_half": ("P(female) above .5", "P(여성) .5 초과"),
    "share_of_all": ("share of all images", "전체 이미지 중 비율"),
    "share_of_females": ("share of women's images", "여성 이미지 중 비율"),
    "different_originals": ("different photographs", "서로 다른 사진"),
    "kept": ("kept", "남긴 것"),
    "splits": ("splits", "분할"),
    "male_accepted": ("men that the rule would take", "규칙이 받아들일 남성"),
    "male_accept_rate": ("share of men that the rule would take", "규칙이 받아들일 남성의 비율"),
    "male_accept_interval": ("the same, 95 % interval", "같은 비율, 95 % 구간"),
    "female_accepted": ("women that the rule takes", "규칙이 받아들인 여성"),
    "d1_share": ("share of D1 that the rule takes", "규칙이 받아들인 D1의 비율"),
    "d1_accepted": ("photographs of D1 that it takes", "규칙이 받아들인 D1 사진"),
    "advice": ("advice", "조언"),
    "threshold": ("threshold of P(female)", "P(여성)의 기준"),
    "suspected": ("probably in the wrong folder", "폴더가 잘못되었을 가능성이 큼"),
    "suspected_share": ("share probably in the wrong folder", "폴더가 잘못된 비율"),
    "suspected_in": ("probably in the wrong folder", "폴더가 잘못되었을 가능성이 큼"),
    "calibrated_at_rule": ("calibrated P at the threshold", "기준에서 보정한 확률"),
    "originals_kept": ("photographs kept", "남긴 사진"),
    "copies_kept": ("copies kept", "남긴 사본"),
    "pairs": ("pairs", "쌍"),
    "logit_change_darker": ("change of logit, darker copy", "로짓 변화, 어두운 사본"),
    "logit_change_brighter": ("change of logit, brighter copy", "로짓 변화, 밝은 사본"),
    "one_passes": ("share with only one of the pair taken", "쌍 중 하나만 통과한 비율"),
    "thresholds": ("at several thresholds", "여러 기준에서"),
    # labels and values
    "values": ("labels of each value", "값마다 레이블 수"),
    "remade": ("reviewed again", "다시 검토함"),
    "look_wrong": ("look wrong", "잘못되어 보임"),
    "expected_wrong": ("wrong labels expected", "예상되는 잘못된 레이블"),
    "unlabelled": ("without a label", "레이블 없음"),
    "learned_from": ("photographs learned from", "배운 사진"),
    "labelled_sets": ("photographs of the labelled sets", "레이블이 있는 세트의 사진"),
    "features": ("features", "특징"),
    "variance_kept": ("share of the variance kept", "유지한 분산의 비율"),
    "r2": ("R² (1: exact, 0: no better than the mean)", "R² (1: 정확, 0: 평균과 같음)"),
    "mae": ("mean absolute error", "평균 절대 오차"),
    "rmse": ("root mean square error", "평균 제곱근 오차"),
    "spearman": ("rank correlation", "순위 상관"),
    "pearson": ("correlation", "상관"),
    "recall_at": ("share recognised, by label", "맞힌 비율, 레이블별"),
    "n_at": ("labels, by label", "레이블 수, 레이블별"),
    "noise": ("share of noise", "잡음의 비율"),
    "scale": ("scale", "척도"),
    "mean": ("mean", "평균"),
    "standard_deviation": ("standard deviation", "표준편차"),
    "deviation": ("predicted deviation", "예측한 편차"),
    "mean_uncertainty": ("mean uncertainty", "평균 불확실성"),
    "within_one": ("share within one deviation", "편차 1배 안의 비율"),
    "within_two": ("share within two deviations", "편차 2배 안의 비율"),
    "mean_change": ("mean change", "평균 변화"),
    "mean_absolute_change": ("mean absolute change", "평균 절대 변화"),
    "transform": ("change by the transform", "변환에 의한 변화"),
    "mean_prediction": ("mean prediction", "평균 예측"),
    "recall": ("share recognised", "맞힌 비율"),
    # trainings
    "epochs": ("epochs", "에포크"),
    "epoch": ("epoch of the model", "모델의 에포크"),
    "best_epoch": ("best epoch", "가장 좋은 에포크"),
    "start": ("start of the training", "학습의 시작"),
    "from_start_weights": ("from the shipped start weights", "제공된 시작 가중치에서"),
    "without_control": ("not controlled", "조절하지 않는 값"),
    "labels_changed": ("labels changed since the last training", "지난 학습 뒤 바뀐 레이블"),
    "bits_per_dim": ("bits per dimension, held out", "차원당 비트, 학습에 쓰지 않은 이미지"),
    "bits_per_dim_iw10": ("the same, tighter bound", "같은 값, 더 엄밀한 한계"),
    "kl": ("nats of KL by latent group", "잠재 그룹별 KL(nat)"),
    "from": ("lowest value supported", "지원하는 가장 낮은 값"),
    "to": ("highest value supported", "지원하는 가장 높은 값"),
    "shrinkage": ("shrinkage by latent group", "잠재 그룹별 축소"),
    "nats": ("gain over the prior, nats", "사전 분포 대비 이득(nat)"),
    "nats_train": ("the same on training images", "같은 값, 학습 이미지"),
    "largest_variance": ("largest variance", "가장 큰 분산"),
    "least_variance": ("least variance", "가장 작은 분산"),
    "overfitting": ("overfitting of the discriminator", "판별 모델의 과적합"),
    # samples and their evaluation
    "guidance": ("guidance", "가이던스"),
    "detail": ("detail", "디테일"),
    "seed": ("seed", "시드"),
    "faces": ("faces", "얼굴"),
    "steps": ("steps", "단계"),
    "slope": ("slope of its own slider (1: exact)", "자기 슬라이더의 기울기 (1: 정확)"),
    "drift": ("change of the person (1: another one)", "인물의 변화 (1: 다른 사람)"),
    "leakage": ("largest slope of another value", "다른 값의 가장 큰 기울기"),
    "least_real": ("least real position, standard errors", "가장 덜 실제 같은 위치, 표준오차"),
    "least_real_at": ("its position", "그 위치"),
    "evaluator_r2": ("R² of the measuring model", "측정 모델의 R²"),
    "known": ("can be predicted on held-out images", "학습에 쓰지 않은 이미지에서 예측 가능"),
    "fd_n": ("pictures on each side of a distance", "거리의 양쪽 사진 수"),
    "fd_dimensions": ("dimensions of the Fréchet distances", "프레셰 거리의 차원"),
    "fd_random": ("Fréchet distance, random features", "프레셰 거리, 무작위 특징"),
    "fd_pixels": ("Fréchet distance, pixels", "프레셰 거리, 픽셀"),
    "fd_attributes": ("Fréchet distance, attributes", "프레셰 거리, 속성"),
    "kid_random": ("kernel distance, random features", "커널 거리, 무작위 특징"),
    "kid_pixels": ("kernel distance, pixels", "커널 거리, 픽셀"),
    "kid_attributes": ("kernel distance, attributes", "커널 거리, 속성"),
    "swd": ("sliced Wasserstein distance", "슬라이스 바서슈타인 거리"),
    "precision": ("share of faces like photographs", "사진과 비슷한 얼굴의 비율"),
    "coverage": ("share of photographs with a face near", "가까운 얼굴이 있는 사진의 비율"),
    "density": ("density around photographs", "사진 주변의 밀도"),
    "diversity": ("variety", "다양성"),
    "nearest": ("distance to the nearest training image", "가장 가까운 학습 이미지와의 거리"),
    "copying": ("copying (.5: none)", "베낌 (.5: 없음)"),
    "power": ("fine detail relative to photographs, by octave", "사진 대비 디테일, 옥타브별"),
    "power_plain": ("the same without detail", "같은 값, 디테일 없이"),
    "kurtosis": ("kurtosis by octave", "첨도, 옥타브별"),
    "kurtosis_real": ("kurtosis of photographs", "사진의 첨도"),
    "agreement": ("agreement with the photograph", "사진과의 일치"),
    "agreement_plain": ("agreement without detail", "디테일 없는 일치"),
    "grid": ("periodic pattern", "주기적인 무늬"),
    "detail_identity": ("change of the person by detail", "디테일에 의한 인물의 변화"),
    "detail_recognised": ("faces recognised with detail", "디테일을 더해도 알아보는 얼굴"),
    "judge_network": ("fresh network: AUC", "새 신경망: AUC"),
    "judge_regression": ("fresh regression: AUC", "새 회귀: AUC"),
    "judge_network_nothing": ("control: two halves, network", "대조: 두 절반, 신경망"),
    "judge_regression_nothing": ("control: two halves, regression", "대조: 두 절반, 회귀"),
    "judge_network_tells_blur": ("control: blur, network", "대조: 흐림, 신경망"),
    "judge_network_tells_plain": ("control: no detail, network", "대조: 디테일 없음, 신경망"),
    "judge_regression_tells_blur": ("control: blur, regression", "대조: 흐림, 회귀"),
    "judge_regression_tells_plain": ("control: no detail, regression", "대조: 디테일 없음, 회귀"),
    # critics and retouching
    "auc": _AUC,
    "train_auc": ("the same on training images", "같은 값, 학습 이미지"),
    "mean_logit": ("mean logit", "평균 로짓"),
    "retouched": ("retouched", "보정함"),
    "kept_diverged": ("kept: diverged", "그대로 둠: 발산"),
    "kept_good": ("kept: good already", "그대로 둠: 이미 좋음"),
    "kept_not_better": ("kept: not better", "그대로 둠: 나아지지 않음"),
    "kept_blind_guide": ("kept: the critic gives no direction", "그대로 둠: 비평가가 방향을 못 줌"),
    "evaluations_per_image": ("evaluations for each image", "이미지마다 평가 횟수"),
    "most_evaluations": ("most evaluations", "가장 많은 평가 횟수"),
    "guide_logit": ("critic's logit", "비평가의 로짓"),
    "mean_change_grey_levels": ("mean change, grey levels", "평균 변화, 회색 단계"),
    "identity": ("change of the person (1: another one)", "인물의 변화 (1: 다른 사람)"),
    "recognised": ("faces recognised", "알아보는 얼굴"),
    "values_mae": ("error of the five values", "다섯 값의 오차"),
    "judge_logit": ("judge's logit", "판정 모델의 로짓"),
    "judge_gain": ("judge's gain", "판정 모델의 이득"),
    "judge_auc": ("judge's AUC", "판정 모델의 AUC"),
    "reconstruction_judge_logit": ("second judge's logit", "둘째 판정 모델의 로짓"),
    "reconstruction_judge_gain": ("second judge's gain", "둘째 판정 모델의 이득"),
    "reconstruction_judge_auc": ("second judge's AUC", "둘째 판정 모델의 AUC"),
    "method": ("method", "방법"),
    "fidelity": ("strength", "강도"),
    "step_size": ("step size", "걸음 크기"),
    "prior_weight": ("weight of the prior", "사전 분포의 가중치"),
    "values_weight": ("weight of the values", "값의 가중치"),
    "identity_weight": ("weight of the person", "인물의 가중치"),
    "batch_size": ("batch size", "배치 크기"),
    # columns
    **_ATTRIBUTES,
    "female": ("women", "여성"),
    "male": ("men", "남성"),
    "d1": ("D1", "D1"),
    "d2": ("D2", "D2"),
    "before": ("before", "전"),
    "after": ("after", "후"),
    "real": ("photographs", "사진"),
    "samples": ("samples", "표본"),
    "generated": ("generated", "생성"),
    "full": ("full size", "전체 크기"),
    "half": ("half", "절반"),
    "quarter": ("quarter", "4분의 1"),
}
_BOUNDS: dict[str, Words] = {
    "_low": ("lower 95 % bound", "95 % 하한"),
    "_high": ("upper 95 % bound", "95 % 상한"),
    "_interval": ("95 % interval", "95 % 구간"),
    "_standard_error": ("standard error", "표준 오차"),
    "_before": ("before", "전"),
    "_after": ("after", "후"),
}
_PARTS: dict[str, Words] = {  # a figure of a part of the pictures begins with its name
    "female_": ("{}, women", "{}, 여성"),
    "male_": ("{}, men", "{}, 남성"),
    "n_": ("number: {}", "수: {}"),
    "d1_minus_d2_": ("{}, D1 minus D2", "{}, D1 − D2"),
    "d1_": ("{}, D1", "{}, D1"),
    "d2_": ("{}, D2", "{}, D2"),
    "darker_labelled_": ("{}, darker copy of a labelled photograph", "{}, 레이블 있는 어두운 사본"),
    "darker_": ("{}, darker copy", "{}, 어두운 사본"),
    "brighter_labelled_": (
        "{}, brighter copy of a labelled photograph",
        "{}, 레이블 있는 밝은 사본 ",
    ),
    "brighter_": ("{}, brighter copy", "{}, 밝은 사본"),
}
_PICTURES: dict[str, Words] = {
    "sweeps": ("one value changed at a time", "한 번에 한 값만 바꾼 그림"),
    "curves": ("curves of the training", "학습 곡선"),
    "progress": ("how it learned, epoch by epoch", "에포크별 학습 과정"),
    "control": ("asked and measured values", "요청한 값과 측정한 값"),
    "faces": ("samples in random order", "무작위 순서의 표본"),
    "nearest_training_pictures": (
        "samples and their nearest training images",
        "가장 가까운 학습 이미지",
    ),
    "looks_at": ("where the critic looks", "비평가가 보는 곳"),
    "relevance": ("where the model looks", "모델이 보는 곳"),
    "patches": ("patches that the features are made of", "특징을 이루는 조각"),
    "best": ("the largest gains", "가장 크게 나아진 것"),
    "worst": ("the least gains", "가장 적게 나아진 것"),
    "rule": ("what the rule takes", "규칙이 받아들이는 것"),
    "females_below": ("women just below the threshold", "기준 바로 아래의 여성"),
    "kept_above": ("kept, just above the threshold", "기준 바로 위, 남긴 것"),
    "males_accepted": ("men that the rule would take", "규칙이 받아들일 남성"),
    "males_below": ("men just below the threshold", "기준 바로 아래의 남성"),
    "suspected_folders": ("probably in the wrong folder", "폴더가 잘못되었을 가능성이 큼"),
    "reliability": ("reliability of the score", "점수의 신뢰도"),
    "scores": ("scores of each folder", "폴더별 점수"),
    "brightness": ("originals and their brightness copies", "원본과 밝기 사본"),
    "predicted": ("labels and predictions", "레이블과 예측"),
    "levels": ("errors by label", "레이블별 오차"),
    "uncertainty": ("predicted deviations and errors", "예측한 편차와 오차"),
    "sets": ("D1 and D2", "D1과 D2"),
}

_TEXTS: dict[str, str] = {
    # the frame of a page
    "Open everything": "모두 펼치기",
    "Report": "보고서",
    "Curation": "큐레이션",
    "The five values": "다섯 값",
    "gaip3 report: {root}": "gaip3 보고서: {root}",
    "gaip3 curation: {root}": "gaip3 큐레이션: {root}",
    "gaip3 five values: {root}": "gaip3 다섯 값: {root}",
    # the first screen
    "Faces": "얼굴",
    "Quality of the faces": "얼굴의 품질",
    "The first {shown} of {all} samples, drawn at random.": "무작위로 뽑은 표본 {all}개 중 처음"
    " {shown}개입니다.",
    "{height} × {width} pixels (height × width), shown at {scale}×.": (
        "{height} × {width}픽셀(높이 × 너비), {scale}배로 표시."
    ),
    "{height} × {width} pixels (height × width), shown at full size.": (
        "{height} × {width}픽셀(높이 × 너비), 실제 크기로 표시."
    ),
    "Fine detail is {share} as strong as in photographs (100 %: as sharp).": (
        "미세한 디테일의 세기는 사진의 {share}입니다(100 %: 사진만큼 선명)."
    ),
    "Variety is {share} of that of photographs.": "다양성은 사진의 {share}입니다.",
    "{share} of the samples are nearer to a training image than held-out photographs are (50 %:"
    " nothing is copied).": (
        "학습에 쓰지 않은 사진보다 학습 이미지에 더 가까운 표본: {share}(50 %: 베낀 것이 없음)."
    ),
    "A judge trained for this measurement tells samples from photographs in {full} of pairs at full"
    " size, in {quarter} at a quarter (50 %: it cannot).": (
        "이 측정을 위해 학습한 판정 모델은 실제 크기에서 쌍의 {full}, 4분의 1 크기에서 {quarter}의"
        " 비율로 표본과 사진을 구별합니다(50 %: 구별하지 못함)."
    ),
    "This judge failed its own control, so its figures do not count.": (
        "이 판정 모델은 자체 대조를 통과하지 못했으므로 그 수치는 유효하지 않습니다."
    ),
    "All samples": "모든 표본",
    "Sliders": "슬라이더",
    "follows the slider": "슬라이더를 따름",
    "follows the slider in part": "슬라이더를 일부만 따름",
    "does not follow the slider": "슬라이더를 따르지 않음",
    "is not controlled: it cannot be predicted on held-out images": (
        "조절하지 않음: 학습에 쓰지 않은 이미지에서 예측할 수 없음"
    ),
    "asked {from_} → {to}, measured {low} → {high}": "요청 {from_} → {to}, 측정 {low} → {high}",
    "also moves": "함께 움직임:",
    "Means of {faces} faces, measured by models that took no part in training the generator. They"
    " see ends less extreme than they are.": (
        "얼굴 {faces}개의 평균이며, 생성기 학습에 참여하지 않은 모델로 측정했습니다. 이 모델은 양"
        " 끝을 실제보다 덜 극단적으로 봅니다."
    ),
    "Each slider on two faces": "두 얼굴에서 본 슬라이더",
    "0 closed … 1 open": "0 닫힘 … 1 열림",
    "0 light … 1 dark": "0 밝음 … 1 어두움",
    "0 dark … 1 bright": "0 어두움 … 1 밝음",
    "0 turned to the picture's left, 0.5 not turned, 1 turned to its right": (
        "0 사진의 왼쪽, 0.5 정면, 1 오른쪽"
    ),
    "Checks": "검사",
    "{passed} of {all} checks passed.": "검사 {all}개 중 {passed}개를 통과했습니다.",
    "All {all} checks passed.": "검사 {all}개를 모두 통과했습니다.",
    "No check has run.": "실행한 검사가 없습니다.",
    "{count} not run on the present data": "현재 데이터에서 실행하지 않은 검사 {count}개",
    "{count} passed": "통과한 검사 {count}개",
    "blocks what follows": "뒤의 작업을 막음",
    "found": "결과",
    "trained {time}": "{time} 학습",
    "version {number}": "버전 {number}",
    "champion": "챔피언",
    "candidate": "후보",
    "Commit": "커밋",
    "with changes that were not committed": "커밋하지 않은 변경 포함",
    "Training images": "학습 이미지",
    "{images} from {originals} photographs; {learned} to learn from, the others held out": (
        "사진 {originals}장의 이미지 {images}장. {learned}장은 학습에 쓰고 나머지는 남김"
    ),
    "This report": "이 보고서",
    "Go on": "이어서 보기",
    "which photographs train the generator": "생성기를 학습하는 사진",
    "how accurate the five values are": "다섯 값의 정확도",
    "every picture of the sliders as a table": "슬라이더의 모든 사진을 담은 표",
    "all trainings": "모든 학습",
    "all assets and their history": "모든 에셋과 이력",
    "MLflow and Dagster answer while gaip3 ui runs. It prints their addresses, which differ if a"
    " port was taken.": (
        "MLflow와 Dagster는 gaip3 ui가 실행되는 동안 열립니다. 포트가 사용 중이면 주소가 다르며,"
        " gaip3 ui가 주소를 출력합니다."
    ),
    "All figures and pictures": "모든 수치와 그림",
    # sections
    "Images": "사진",
    "Gender": "성별",
    "Labels": "레이블",
    "Input models": "입력 모델",
    "Generator": "생성기",
    "Evaluators": "측정 모델",
    "Critic": "비평가",
    "Retouching": "보정",
    # the curation report
    "The rule": "규칙",
    "Nearest misses": "아슬아슬한 사진",
    "Wrong folders": "잘못된 폴더",
    "Calibration": "확률 보정",
    "Brightness copies": "밝기 사본",
    "accepted images": "받아들인 이미지",
    "images kept": "남긴 이미지",
    "females below": "기준 바로 아래의 여성",
    "kept above": "기준 바로 위, 남긴 사진",
    "males accepted": "규칙이 받아들일 남성",
    "males below": "기준 바로 아래의 남성",
    "suspected wrong folders": "폴더가 잘못된 것으로 의심됨",
    "reliability": "신뢰도",
    "scores": "점수",
    "originals and their copies": "원본과 사본",
    "folder": "폴더",
    "pairs": "쌍",
    "images": "이미지",
    "originals kept": "남긴 원본",
    "copies kept": "남긴 사본",
    "P(female) at least": "P(여성) 최소",
    "female recall": "찾은 여성의 비율",
    "D1 kept": "남긴 D1",
    "logit, darker copy": "로짓, 어두운 사본",
    "logit, brighter copy": "로짓, 밝은 사본",
    "only one passes": "하나만 통과",
    "The rule P(female) ≥ {threshold} takes {women} of the women's photographs ({women_taken} of"
    " {women_n}), {men_taken} of {men_n} men's, and {d1} of D1 ({d1_taken} of {d1_n}).": (
        "규칙 P(여성) ≥ {threshold}은 여성 사진의 {women}({women_n}장 중 {women_taken}장), 남성"
        " 사진 {men_n}장 중 {men_taken}장, D1의 {d1}({d1_n}장 중 {d1_taken}장)를 받아들입니다."
    ),
    "1 photograph is probably in the wrong folder.": (
        "폴더가 잘못되었을 가능성이 큰 사진은 1장입니다."
    ),
    "{suspected} photographs are probably in the wrong folder.": (
        "폴더가 잘못되었을 가능성이 큰 사진은 {suspected}장입니다."
    ),
    # the report of the five values
    "Out of fold": "학습에 쓰지 않은 사진",
    "Levels": "레이블별",
    "Uncertainty": "불확실성",
    "Worst errors": "가장 큰 오차",
    "D1 against D2": "D1과 D2 비교",
    "all labels": "모든 레이블",
    "by sex": "성별로",
    "by level": "레이블별",
    "predicted standard deviation against errors": "예측한 표준편차와 오차",
    "values of the final originals, out of fold if labelled": "최종 원본의 값",
    "change of the value from an original to its copy": "원본에서 사본으로의 값 변화",
    "of": "대상",
    "d1 - d2": "D1 − D2",
    "darker": "어두운 사본",
    "brighter": "밝은 사본",
    "darker, labelled": "어두운 사본, 레이블 있음",
    "brighter, labelled": "밝은 사본, 레이블 있음",
    "The models predict the hand labels of photographs that they have not seen. An error of .1 is a"
    " tenth of a slider.": (
        "모델이 보지 못한 사진의 레이블을 예측한 결과입니다. 오차 .1은 슬라이더의 10분의 1입니다."
    ),
}


def text_words(text: str) -> Words:
    """A text of the pages, or a template of one, in both languages; a text without a translation,
    such as a name of a folder, is the same in both."""
    return text, _TEXTS.get(text, text)


def asset_words(name: str) -> Words:
    """What people call an asset."""
    for families, members in ((_OF_ATTRIBUTE, _ATTRIBUTES), (_OF_SET, _SETS)):
        for prefix, family in families.items():
            member = members.get(name.removeprefix(prefix))
            if name.startswith(prefix) and member:
                return _filled(family, member)
    return _ASSETS.get(name, (name, name))


def attribute_words(name: str) -> Words:
    """What people call an attribute."""
    return _ATTRIBUTES[name]


def figure_words(key: str) -> Words:
    """The label of a figure. The key of a figure that has none is shown with blanks."""
    if key in _FIGURES:
        return _FIGURES[key]
    for name, attribute in _ATTRIBUTES.items():
        if key.endswith(f"_{name}"):
            english, korean = figure_words(key.removesuffix(f"_{name}"))
            return f"{english}, {attribute[0]}", f"{korean}, {attribute[1]}"
    for prefix, part in _PARTS.items():
        rest = key.removeprefix(prefix)
        if key.startswith(prefix) and rest in _FIGURES:
            return _filled(part, _FIGURES[rest])
    for ending, (english, korean) in _BOUNDS.items():
        if key.endswith(ending) and key.removesuffix(ending) in _FIGURES:
            words = _FIGURES[key.removesuffix(ending)]
            return f"{words[0]}, {english}", f"{words[1]}, {korean}"
    plain = key.replace("_", " ")
    level = plain.removeprefix("level ")
    return (plain, f"레이블 {level}") if level != plain else text_words(plain)


def picture_words(name: str) -> Words:
    """What a picture shows; ``name`` may begin with that of its asset and a dot."""
    asset, dot, which = name.rpartition(".")
    if dot and which in _ATTRIBUTES:
        which = f"{asset}_{which}"
    found = re.fullmatch(rf"(worst|label_review)_({'|'.join(ATTRIBUTES)})", which)
    if found:
        return _ATTRIBUTES[found[2]]
    numbered = re.fullmatch(r"(\w+?)_(\d+)", which)
    if numbered and numbered[1] in _PICTURES:
        english, korean = _PICTURES[numbered[1]]
        return f"{english} ({numbered[2]})", f"{korean} ({numbered[2]})"
    return _PICTURES.get(which, asset_words(which))


def _filled(template: Words, words: Words) -> Words:
    return template[0].format(words[0]), template[1].format(words[1])
