"""What each asset check tests, in English and in Korean: Dagster, the terminal and the report show
the same words."""

from typing import NamedTuple

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import IMAGE_SETS, KINDS

MIN_FINAL = 50  # with fewer, neither the generator nor its held-out figures are meaningful
MIN_LABELS = 30
MAX_MOVED = 0.02  # mean change of a value that brightness should not change


class CheckText(NamedTuple):
    """The name of a check for people, and what it tests and what to do if it fails."""

    title: tuple[str, str]  # English, Korean
    meaning: tuple[str, str]


_USABLE = CheckText(
    ("Photographs can be read", "사진을 읽을 수 있음"),
    (
        "There are images, and the share of unusable ones is at most max_unusable_share of"
        " [images]. If it fails, convert, replace, drop or move away the files that the"
        " asset lists as noted.",
        "이미지가 있고, 쓸 수 없는 이미지의 비율이 [images]의 max_unusable_share 이하입니다."
        " 통과하지 못하면 에셋이 noted에 적은 파일을 변환하거나 바꾸거나 제외하거나 옮기세요.",
    ),
)
_ENOUGH_LABELS = CheckText(
    ("Enough labels", "레이블이 충분함"),
    (
        f"At least {MIN_LABELS} labels, of at least two different values. If it fails,"
        " label more images (gaip3 label).",
        f"레이블이 {MIN_LABELS}개 이상이고 값이 두 가지 이상입니다. 통과하지 못하면 이미지에"
        " 레이블을 더 붙이세요(gaip3 label).",
    ),
)
_BETTER_THAN_MEAN = CheckText(
    ("Learned from the labels", "레이블에서 배움"),
    (
        "R² above 0 on labels that were not trained on, that is, better than predicting their mean."
        " If it fails, label more images or review the labels (gaip3 label).",
        "학습에 쓰지 않은 레이블에서 R²가 0보다 큽니다. 즉 평균으로 예측하는 것보다 낫습니다."
        " 통과하지 못하면 레이블을 더 붙이거나 검토하세요(gaip3 label).",
    ),
)
_CRITIC_LEARNED = CheckText(
    ("Tells faces from photographs", "생성된 얼굴과 사진을 구별함"),
    (
        "Held-out ROC AUC above 0.5 and below 1. At 0.5 or below the critic has learned nothing:"
        " more final images or more epochs under [critic] help.",
        "학습에 쓰지 않은 이미지에서 ROC AUC가 0.5보다 크고 1보다 작습니다. 0.5 이하이면 비평가가"
        " 배운 것이 없습니다. 최종 이미지를 늘리거나 [critic]의 epochs를 늘리세요.",
    ),
)
_COVERS_FINAL = CheckText(
    ("A value for every image", "모든 이미지에 값이 있음"),
    (
        "There is a value for every final image, and their mean lies in 0..1. If it fails,"
        " materialise final_features and input_values_* again.",
        "모든 최종 이미지에 값이 있고 평균이 0과 1 사이입니다. 통과하지 못하면 final_features와"
        " input_values_*를 다시 만드세요.",
    ),
)
_CRITICS = (
    "prior_critic_weights",
    "critic_weights",
    "judge_weights",
    "reconstruction_judge_weights",
)

CHECK_TEXTS: dict[tuple[str, str], CheckText] = {  # by asset and check
    **{(f"{kind}_{s.id}", "usable"): _USABLE for kind in KINDS for s in IMAGE_SETS},
    ("near_duplicates", "no_leakage"): CheckText(
        ("No photograph on both sides of the split", "같은 사진이 두 분할에 없음"),
        (
            "No photograph is in two buckets of the split. All pictures are compared with each"
            " other. If it fails, drop one of the two pictures (gaip3 drop).",
            "어떤 사진도 분할의 두 버킷에 들어 있지 않습니다. 모든 사진을 서로 비교합니다. 통과하지"
            " 못하면 두 사진 중 하나를 제외하세요(gaip3 drop).",
        ),
    ),
    ("image_quality", "few_defects"): CheckText(
        ("Few defective photographs", "결함 있는 사진이 적음"),
        (
            "At most 5 % of the originals have a defect. If it fails, look at them and drop the bad"
            " ones (gaip3 drop).",
            "원본의 5 % 이하에 결함이 있습니다. 통과하지 못하면 사진을 확인하고 나쁜 것을"
            " 제외하세요(gaip3 drop).",
        ),
    ),
    **{(f"labels_{a}", "enough_labels"): _ENOUGH_LABELS for a in ATTRIBUTES},
    ("label_review", "few_look_wrong"): CheckText(
        ("Few labels look wrong", "잘못되어 보이는 레이블이 적음"),
        (
            "For every attribute, at most 5 % of the labels are probably wrong. If it fails, review"
            " the most suspicious ones (gaip3 label).",
            "값마다 레이블의 5 % 이하가 잘못되었을 가능성이 큽니다. 통과하지 못하면 가장 의심스러운"
            " 것부터 검토하세요(gaip3 label).",
        ),
    ),
    ("gender_model", "tells_apart"): CheckText(
        ("Tells women from men", "여성과 남성을 구별함"),
        (
            "Out-of-fold ROC AUC above 0.8. If it fails, check that the folders of D2 are sorted by"
            " sex, and add originals to them.",
            "학습에 쓰지 않은 사진에서 ROC AUC가 0.8보다 큽니다. 통과하지 못하면 D2의 폴더가 성별로"
            " 나뉘어 있는지 확인하고 원본을 추가하세요.",
        ),
    ),
    ("gender_probabilities", "probabilities"): CheckText(
        ("A probability for every image", "모든 이미지에 확률이 있음"),
        (
            "One row for each processed image; probabilities lie in 0..1 and are not all alike"
            " (standard deviation above 0.01). If it fails, materialise gender_model again.",
            "처리한 이미지마다 행이 하나 있고, 확률은 0과 1 사이이며 모두 같지는 않습니다(표준편차"
            " 0.01 초과). 통과하지 못하면 gender_model을 다시 만드세요.",
        ),
    ),
    ("final_dataset", "enough_images"): CheckText(
        ("Enough training images", "학습 이미지가 충분함"),
        (
            f"The rule keeps at least {MIN_FINAL} images. If it fails, add originals or lower the"
            " threshold of [final_dataset].",
            f"규칙이 이미지를 {MIN_FINAL}장 이상 남깁니다. 통과하지 못하면 원본을 추가하거나"
            " [final_dataset]의 threshold를 낮추세요.",
        ),
    ),
    ("final_dataset", "no_leakage"): CheckText(
        ("No photograph in two splits", "같은 사진이 두 분할에 없음"),
        (
            "No two final images of one photograph, such as an original and its brightness copy,"
            " are in different splits. If it fails, drop one of them (gaip3 drop).",
            "원본과 밝기 사본처럼 같은 사진에서 나온 최종 이미지가 서로 다른 분할에 있지 않습니다."
            " 통과하지 못하면 그중 하나를 제외하세요(gaip3 drop).",
        ),
    ),
    ("feature_extractor", "keeps_variance"): CheckText(
        ("Features keep the variance", "특징이 분산을 유지함"),
        (
            "The principal axes keep more than a third of the features' variance.",
            "주축이 특징 분산의 3분의 1보다 많이 유지합니다.",
        ),
    ),
    ("final_features", "covers_final"): CheckText(
        ("Features of every image", "모든 이미지에 특징이 있음"),
        (
            "There are features for every final image. If it fails, materialise final_features"
            " again.",
            "모든 최종 이미지에 특징이 있습니다. 통과하지 못하면 final_features를 다시 만드세요.",
        ),
    ),
    ("curation_report", "few_suspected"): CheckText(
        ("Few photographs in the wrong folder", "폴더가 잘못된 사진이 적음"),
        (
            "At most 2 % of the originals of D2 are probably in the wrong folder. If it fails, move"
            " or drop them.",
            "D2 원본의 2 % 이하가 잘못된 폴더에 있을 가능성이 큽니다. 통과하지 못하면 옮기거나"
            " 제외하세요.",
        ),
    ),
    **{(f"input_model_{a}", "learned"): _BETTER_THAN_MEAN for a in ATTRIBUTES},
    **{(f"input_values_{a}", "covers_final"): _COVERS_FINAL for a in ATTRIBUTES},
    ("inputs_report", "steady_under_brightness"): CheckText(
        ("Brightness changes no other value", "밝기가 다른 값을 바꾸지 않음"),
        (
            "Brightness changes no value but the background's: the others change by less than"
            f" {MAX_MOVED:g} on average. If it fails, see Brightness copies in the report.",
            f"밝기는 배경 값만 바꿉니다. 다른 값은 평균 {MAX_MOVED:g}보다 적게 바뀝니다. 통과하지"
            " 못하면 보고서의 밝기 사본을 보세요.",
        ),
    ),
    ("inputs_report", "honest_uncertainty"): CheckText(
        ("Honest uncertainty", "불확실성이 정직함"),
        (
            "The predicted standard deviations match the errors on labels that were not trained on."
            " If it fails, see Uncertainty in the report.",
            "예측한 표준편차가 학습에 쓰지 않은 레이블의 오차와 맞습니다. 통과하지 못하면 보고서의"
            " 불확실성을 보세요.",
        ),
    ),
    ("control_regressor", "learned"): CheckText(
        ("Learned the five values", "다섯 값을 배움"),
        (
            "R² above 0 against the values of the input models on held-out images, for every value."
            " If it fails, raise epochs under [control_regressor] or label more images.",
            "학습에 쓰지 않은 이미지에서 모든 값의 R²가 입력 모델의 값에 대해 0보다 큽니다."
            " 통과하지 못하면 [control_regressor]의 epochs를 늘리거나 레이블을 더 붙이세요.",
        ),
    ),
    ("nvae_weights", "finite_likelihood"): CheckText(
        ("The generator describes held-out images", "생성기가 학습에 쓰지 않은 이미지를 설명함"),
        (
            "Held-out bits/dim are above 0 and below 8, those of uniform noise. If it fails, raise"
            " epochs or lower learning_rate under [nvae].",
            "학습에 쓰지 않은 이미지의 bits/dim이 0보다 크고 균일 잡음의 값인 8보다 작습니다."
            " 통과하지 못하면 [nvae]의 epochs를 늘리거나 learning_rate를 낮추세요.",
        ),
    ),
    ("nvae_samples", "not_flat"): CheckText(
        ("Samples show something", "표본에 형상이 있음"),
        (
            "As many samples as the settings request, and no flat ones (standard deviation of the"
            " pixels below 4 grey levels). If it fails, train the generator longer.",
            "설정이 요구하는 수의 표본이 있고, 밋밋한 표본(픽셀 표준편차가 회색 단계 4 미만)이"
            " 없습니다. 통과하지 못하면 생성기를 더 오래 학습하세요.",
        ),
    ),
    **{(f"evaluator_{a}", "learned"): _BETTER_THAN_MEAN for a in ATTRIBUTES},
    ("detail_weights", "sharp"): CheckText(
        ("Faces with detail are sharp", "디테일을 더한 얼굴이 선명함"),
        (
            "In every octave, samples with detail have 0.7 to 1.4 times the power of photographs."
            " If it fails, raise epochs under [detail].",
            "디테일을 더한 표본의 파워가 모든 옥타브에서 사진의 0.7–1.4배입니다. 통과하지 못하면"
            " [detail]의 epochs를 늘리세요.",
        ),
    ),
    ("generator_evaluation", "sliders_move"): CheckText(
        ("Sliders move their values", "슬라이더가 값을 움직임"),
        (
            "Every value can be predicted on held-out pictures, and every slider moves its value"
            " (slope above 0.1). If it fails, label more images with rare values.",
            "모든 값을 학습에 쓰지 않은 사진에서 예측할 수 있고, 모든 슬라이더가 자기 값을"
            " 움직입니다(기울기 0.1 초과). 통과하지 못하면 드문 값의 이미지에 레이블을 더 붙이세요."
            " ",
        ),
    ),
    ("generator_evaluation", "sliders_stay_real"): CheckText(
        ("Faces stay real at every slider position", "슬라이더 어디에서나 실제 같음"),
        (
            "At no slider position does the judge find pictures significantly less real than at the"
            " middle (at most 2 standard errors). If it fails, add images with such values.",
            "슬라이더의 어느 위치에서도 판정 모델이 가운데보다 유의하게 덜 실제 같다고 보지"
            " 않습니다(표준오차 2배 이내). 통과하지 못하면 그런 값의 이미지를 추가하세요.",
        ),
    ),
    ("generator_evaluation", "sharp_as_photographs"): CheckText(
        ("Faces are as sharp as photographs", "얼굴이 사진만큼 선명함"),
        (
            "Power, kurtosis and share of noise of the samples' octaves are those of photographs,"
            " without a periodic pattern. If it fails, raise epochs under [detail].",
            "표본 옥타브의 파워, 첨도, 잡음 비율이 사진과 같고 주기적인 무늬가 없습니다. 통과하지"
            " 못하면 [detail]의 epochs를 늘리세요.",
        ),
    ),
    ("generator_evaluation", "judges_count"): CheckText(
        ("The fresh judges are valid", "새 판정 모델이 유효함"),
        (
            "The fresh judges are valid: they detect blur and missing detail, and find no"
            " difference between two halves of photographs. If it fails, do not use their figures.",
            "새 판정 모델이 유효합니다. 흐림과 빠진 디테일을 알아내고, 사진을 둘로 나눈 두 절반은"
            " 구별하지 못합니다. 통과하지 못하면 그 수치를 쓰지 마세요.",
        ),
    ),
    **{(name, "tells_apart"): _CRITIC_LEARNED for name in _CRITICS},
    ("aggregate_posterior", "better_than_prior"): CheckText(
        ("Latents fit better than the prior", "잠재값이 사전 분포보다 잘 맞음"),
        (
            "Latents of held-out pictures have a higher density under the fitted Gaussians than"
            " under the prior.",
            "학습에 쓰지 않은 사진의 잠재값은 사전 분포보다 맞춘 가우스 분포에서 밀도가 높습니다.",
        ),
    ),
    ("retouched_samples", "judge_prefers"): CheckText(
        ("Retouching makes faces more real", "보정한 얼굴이 더 실제 같음"),
        (
            "The mean logit of the judge, which does not steer retouching, is higher after it than"
            " before. If it fails, change [retouch] or train the generator longer.",
            "보정을 이끌지 않는 판정 모델의 평균 로짓이 보정 뒤에 더 높습니다. 통과하지 못하면"
            " [retouch]를 바꾸거나 생성기를 더 오래 학습하세요.",
        ),
    ),
    ("report", "complete"): CheckText(
        ("The report is complete", "보고서가 완전함"),
        ("The page has an entry for every asset.", "페이지에 모든 에셋의 항목이 있습니다."),
    ),
}
